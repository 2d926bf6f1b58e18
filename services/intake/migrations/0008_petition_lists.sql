-- What a desk looks at of its petitions: the unanswered ones by due date, the answered ones with the newest first; and the
-- lists by state, for agencies, for the portal that sent them, and for the whole site.
CREATE INDEX petition_due ON petition (agency, due_at, id) WHERE state = 'filed';
CREATE INDEX petition_answered ON petition (agency, answered_at, id) WHERE answered_at IS NOT NULL;
CREATE INDEX petition_agency_state ON petition (agency, state, id);
CREATE INDEX petition_sender_state ON petition (sender, state, id);
CREATE INDEX petition_state ON petition (state, id);
