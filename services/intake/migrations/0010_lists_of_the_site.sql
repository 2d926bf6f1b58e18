-- The lists of the whole site by state, and what one portal sent by state. Returned dossiers, of which there are a thousand
-- for each open one, are found by their codes.
CREATE INDEX dossier_site_state ON dossier (state, code) WHERE state <> 10;
CREATE INDEX copy_site_state ON copy (state, code) WHERE state <> 10;
CREATE INDEX dossier_sender_state ON dossier (sender, state, code) WHERE sender IS NOT NULL AND state <> 10;

-- What is overdue on the whole site, by code: once it has been raised no tick is to come, so that of the open dossiers these
-- alone stand here. Those whose tick is due this moment are found by dossier_tick.
CREATE INDEX dossier_late ON dossier (state, code) WHERE overdue_from IS NOT NULL AND next_tick IS NULL;
CREATE INDEX dossier_late_sender ON dossier (sender, state, code)
    WHERE sender IS NOT NULL AND overdue_from IS NOT NULL AND next_tick IS NULL;

-- A copy has no ticks: its home says when it has come to be overdue.
ALTER TABLE copy ADD COLUMN late boolean NOT NULL DEFAULT false;
UPDATE copy SET late = true
WHERE overdue_from IS NOT NULL AND (paused OR (body::jsonb ->> 'overdue_raised')::timestamptz = due_at);
CREATE INDEX copy_late ON copy (state, code) WHERE late;
CREATE INDEX copy_late_unsaid ON copy (overdue_from) WHERE overdue_from IS NOT NULL AND NOT late;

-- Those of one agency are among its open ones by due date (dossier_due).
DROP INDEX dossier_overdue;

-- How a portal stands: since when the oldest of what it has not been told waits, and how much it has been told.
CREATE INDEX portal_waiting_since ON portal_dossier (portal, changed) WHERE state = 'waiting';
CREATE INDEX portal_sent ON portal_dossier (portal) WHERE state = 'sent';
