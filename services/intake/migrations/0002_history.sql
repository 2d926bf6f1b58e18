-- The people that were erased: what a restored database is told again.
CREATE TABLE erasure (
    contact_ref text PRIMARY KEY,
    at          timestamptz NOT NULL,
    who         text NOT NULL
);

-- Each local day's heads of the chains, signed when the day is over, and the seal before it: a history that cannot be
-- rewritten unseen.
CREATE TABLE seal (
    day       date PRIMARY KEY,
    dossiers  integer NOT NULL,
    events    bigint NOT NULL,
    root      bytea NOT NULL,
    previous  bytea,
    signed_at timestamptz NOT NULL,
    key_id    text NOT NULL,
    signature bytea NOT NULL
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON seal FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON seal EXECUTE FUNCTION append_only();
