-- That this database was restored, and from when its backup is. `whole`: what the upper site has was given back; until then no
-- day is sealed.
CREATE TABLE restored (
    at    timestamptz PRIMARY KEY,
    taken timestamptz NOT NULL,
    whole boolean NOT NULL
);
