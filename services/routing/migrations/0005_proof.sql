-- What proves a hand-over elsewhere: the manifests that peers have signed, the envelopes about a dossier, certificates.

-- The upper site's word on our keys, and what leads from it to a root.
ALTER TABLE link ADD COLUMN certificates jsonb NOT NULL DEFAULT '[]';

-- The dossier that an envelope is a receipt for.
ALTER TABLE link_received ADD COLUMN key text;
CREATE INDEX link_received_key ON link_received (key) WHERE key IS NOT NULL;

-- The manifest and signature of each record that was taken, by its first number.
CREATE TABLE link_record (
    peer     text NOT NULL REFERENCES link,
    epoch    integer NOT NULL,
    first    bigint NOT NULL,
    manifest text NOT NULL,
    jws      text NOT NULL,
    PRIMARY KEY (peer, epoch, first)
);
