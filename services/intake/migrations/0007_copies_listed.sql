-- Copies stand in the lists beside the site's own dossiers: what the lists show and look for, in columns.
ALTER TABLE copy
    ADD COLUMN procedure    text NOT NULL DEFAULT '',
    ADD COLUMN received_at  timestamptz,
    ADD COLUMN paused       boolean NOT NULL DEFAULT false,
    ADD COLUMN overdue_from timestamptz,
    ADD COLUMN sequence     integer NOT NULL DEFAULT 0;
UPDATE copy SET procedure = body::jsonb ->> 'procedure', received_at = (body::jsonb ->> 'received_at')::timestamptz,
    paused = body::jsonb ->> 'paused_at' IS NOT NULL, sequence = (body::jsonb ->> 'sequence')::int,
    overdue_from = CASE WHEN state IN (2, 4, 5, 6, 7) AND body::jsonb ->> 'paused_at' IS NULL THEN due_at END;
CREATE INDEX copy_deciding ON copy (deciding_agency, code) WHERE deciding_agency <> agency;
CREATE INDEX copy_overdue ON copy (agency, overdue_from) WHERE overdue_from IS NOT NULL;
CREATE INDEX copy_state ON copy (agency, state, code) WHERE state <> 10;
CREATE INDEX copy_state_deciding ON copy (deciding_agency, state, code) WHERE state <> 10 AND deciding_agency <> agency;

-- All that is known here; `home` is null for what belongs here.
CREATE VIEW listed (code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home) AS
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL::text FROM dossier
UNION ALL
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home FROM copy;
