-- Applicants whom a restored database does not know and no other site could give back: the desk asks them again.
CREATE TABLE missing_person (
    contact_ref text PRIMARY KEY,
    since       timestamptz NOT NULL
);
