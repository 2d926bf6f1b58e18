-- How far each portal has been told, by the recorded time of the dossiers; and whether it answers.
CREATE TABLE portal (
    name     text PRIMARY KEY,
    since    timestamptz NOT NULL,
    after    text NOT NULL DEFAULT '',
    failures integer NOT NULL DEFAULT 0,
    down     timestamptz,  -- since when it does not take anything
    error    text,
    next_at  timestamptz,
    lease    timestamptz   -- one process at a time tells it
);

-- What a portal is to know of a dossier: up to which version it is told, and what it refused.
CREATE TABLE portal_dossier (
    portal  text NOT NULL REFERENCES portal (name),
    code    text NOT NULL,
    wanted  integer NOT NULL,
    sent    integer NOT NULL DEFAULT 0,
    state   text NOT NULL CHECK (state IN ('waiting', 'sent', 'refused')),
    reason  text,
    number  bigint GENERATED ALWAYS AS IDENTITY,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portal, code)
);
CREATE INDEX portal_waiting ON portal_dossier (portal, number) WHERE state = 'waiting';
CREATE INDEX portal_refused ON portal_dossier (portal, code) WHERE state = 'refused';
