-- What a site that was restored had said since its backup, as a peer has it: each waits here until it stands again as it did.
-- `later`: of a leg that the peer has to ask for once more before.
CREATE TABLE link_back (
    ord    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer   text NOT NULL REFERENCES link,
    kind   text NOT NULL,
    key    text,
    body   text NOT NULL,
    digest text NOT NULL,
    later  boolean NOT NULL DEFAULT false
);
CREATE INDEX link_back_peer ON link_back (peer, ord) WHERE NOT later;
CREATE INDEX link_back_key ON link_back (key, ord);

-- While a ledger is being restored: whether the peer has given back all that it has.
ALTER TABLE link_out ADD COLUMN whole boolean NOT NULL DEFAULT false;

-- Dossiers of this site that a peer has worked on and that nobody could give back.
CREATE TABLE lost (
    code text PRIMARY KEY,
    peer text NOT NULL,
    at   timestamptz NOT NULL
);
