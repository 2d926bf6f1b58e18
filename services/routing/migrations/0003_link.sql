-- Links between sites: each direction's ledger, what arrived, and whose dossiers are worked on or copied here.

-- `home`: the site that a dossier belongs to, when it is not this one. The numbers: how many of its dossier and transfer
-- events have been passed on to the upper site.
ALTER TABLE dossier
    ADD COLUMN home            text,
    ADD COLUMN copied_dossier  integer NOT NULL DEFAULT 0,
    ADD COLUMN copied_transfer integer NOT NULL DEFAULT 0;

-- Transfers that wait to be sent to another site, in the order in which they were asked for.
CREATE INDEX transfer_requested ON transfer (asked_at, id) WHERE state = 'requested';

-- A peer. `side` is the peer's: 'upper' (we dial its bus at `bus`) or 'lower' (it dials ours). `keys`: {sign: [jwk], seal: jwk}.
-- `reaches`: the sites that lie behind it, itself included.
CREATE TABLE link (
    peer      text PRIMARY KEY,
    side      text NOT NULL CHECK (side IN ('upper', 'lower')),
    name      text NOT NULL,
    state     text NOT NULL CHECK (state IN ('invited', 'joined', 'active')),
    paused    boolean NOT NULL DEFAULT false,
    bus       jsonb,
    keys      jsonb NOT NULL,
    ticket    text NOT NULL,          -- of the invitation: its SHA-256 at the upper site, itself at the lower one
    reaches   text[] NOT NULL DEFAULT '{}',
    made      timestamptz NOT NULL DEFAULT now(),
    heard     timestamptz,            -- by our clock, when something good came last
    tick      bigint NOT NULL DEFAULT 0,
    offset_ms integer,                -- the peer's clock less ours, at the last control record
    complete  timestamptz,            -- the peer's watermark: all recorded there before it has been sent
    refused   jsonb NOT NULL DEFAULT '{}',
    directory text                    -- digest of the directory that was sent to it last
);
CREATE UNIQUE INDEX link_one_upper ON link (side) WHERE side = 'upper';

-- The state of the outgoing direction, the lock of its ledger; then the ledger. Epoch null: not numbered yet, in limbo.
CREATE TABLE link_out (
    peer             text PRIMARY KEY REFERENCES link,
    epoch            integer NOT NULL DEFAULT 1,
    number           bigint NOT NULL DEFAULT 0,
    chain            text NOT NULL DEFAULT '',
    sent_epoch       integer NOT NULL DEFAULT 1,
    sent_number      bigint NOT NULL DEFAULT 0,
    confirmed_epoch  integer NOT NULL DEFAULT 1,
    confirmed_number bigint NOT NULL DEFAULT 0,
    recovering       boolean NOT NULL DEFAULT false
);
CREATE TABLE link_sent (
    ord    bigint GENERATED ALWAYS AS IDENTITY,
    peer   text NOT NULL REFERENCES link,
    epoch  integer,
    number bigint,
    id     uuid NOT NULL,
    at     timestamptz NOT NULL,
    kind   text NOT NULL,
    digest text NOT NULL,
    chain  text,
    body   text NOT NULL
);
CREATE UNIQUE INDEX link_sent_place ON link_sent (peer, epoch, number);
CREATE INDEX link_sent_id ON link_sent (peer, id);
CREATE INDEX link_sent_limbo ON link_sent (peer, ord) WHERE epoch IS NULL;

-- The incoming direction: how far it was taken, where it is read on the bus, and the ledger of what arrived.
CREATE TABLE link_in (
    peer        text PRIMARY KEY REFERENCES link,
    epoch       integer NOT NULL DEFAULT 1,
    number      bigint NOT NULL DEFAULT 0,
    chain       text NOT NULL DEFAULT '',
    topic_id    text,
    next_offset bigint NOT NULL DEFAULT 0
);
CREATE TABLE link_received (
    peer   text NOT NULL REFERENCES link,
    epoch  integer NOT NULL,
    number bigint NOT NULL,
    id     uuid NOT NULL,
    at     timestamptz NOT NULL,
    kind   text NOT NULL,
    digest text NOT NULL,
    body   text NOT NULL,
    outcome text NOT NULL,            -- applied, or why it had no effect
    PRIMARY KEY (peer, epoch, number)
);
CREATE INDEX link_received_id ON link_received (peer, id);

-- What came with the peer's directory, by its digest: an entry that differs from it by now is this site's own and stays.
CREATE TABLE adopted (
    peer   text NOT NULL REFERENCES link,
    kind   text NOT NULL,
    id     text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (peer, kind, id)
);

-- To whom data keys are wrapped: the public sealing keys of the sites that links have told of.
CREATE TABLE site_key (
    site text PRIMARY KEY,
    seal jsonb NOT NULL
);

-- What the peer said of a day's envelopes, by direction as seen from here.
CREATE TABLE link_digest (
    peer      text NOT NULL REFERENCES link,
    day       date NOT NULL,
    direction text NOT NULL CHECK (direction IN ('out', 'in')),
    theirs    text NOT NULL,
    PRIMARY KEY (peer, day, direction)
);

-- The person behind a leg that is worked on here: sealed under the person's own key, that key wrapped to this site alone.
CREATE TABLE sealed (
    dossier     text PRIMARY KEY REFERENCES dossier,
    contact_ref text NOT NULL,
    nonce       text NOT NULL,
    ciphertext  text NOT NULL,
    wrapped     text NOT NULL
);

-- Dossiers of lower sites, as far as their events were copied: the numbers are the origin's, `sequence` ours on the topic.
CREATE TABLE copy (
    code              text PRIMARY KEY,
    home              text NOT NULL,
    dossier_sequence  integer NOT NULL,
    transfer_sequence integer NOT NULL,
    sequence          integer NOT NULL,
    recorded          timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX copy_recorded ON copy USING brin (recorded);

CREATE OR REPLACE VIEW head (topic, key, sequence, recorded) AS
SELECT 'lienthong.transfer.v1'::text, code, transfer_sequence, transfer_recorded
FROM dossier WHERE transfer_sequence > 0
UNION ALL
SELECT 'lienthong.public.dossier.v1'::text, code, public_sequence, public_recorded
FROM dossier WHERE public_sequence > 0
UNION ALL
SELECT 'lienthong.document.v1'::text, id, version, recorded FROM document
UNION ALL
SELECT 'lienthong.copy.v1'::text, code, sequence, recorded FROM copy;
