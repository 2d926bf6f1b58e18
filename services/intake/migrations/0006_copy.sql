-- Dossiers of lower sites as their copied events leave them: read here, acted on at their home alone.
CREATE TABLE copy (
    code            text PRIMARY KEY,
    home            text NOT NULL,
    agency          text NOT NULL,
    deciding_agency text NOT NULL,
    state           smallint NOT NULL CHECK (state BETWEEN 1 AND 10),
    due_at          timestamptz,
    body            text NOT NULL
) WITH (fillfactor = 85);
CREATE INDEX copy_agency ON copy (agency, code);
