-- What every service has in its own schema: the owner's log, the outbox that points into it,
-- the inbox that holds the last sequence applied, and what waits.

-- The owner's log: for good, contiguous per aggregatetype and aggregateid. The first columns are those of
-- Debezium's outbox, so that a site may publish by change capture on this table instead of the relay.
CREATE SEQUENCE position;
CREATE TABLE event (
    position      bigint PRIMARY KEY DEFAULT nextval('position'),
    id            uuid NOT NULL,
    aggregatetype text NOT NULL,
    aggregateid   text NOT NULL,
    type          text NOT NULL,
    payload       text,
    sequence      integer NOT NULL CHECK (sequence > 0),
    source        text NOT NULL,
    happened      timestamptz NOT NULL,
    recorded      timestamptz NOT NULL,
    mode          text NOT NULL CHECK (mode IN ('live', 'history'))
);
CREATE UNIQUE INDEX event_key_sequence ON event (aggregateid, sequence, aggregatetype);
CREATE INDEX event_recorded ON event USING brin (recorded);

-- Not yet published. The row lives only until it is; position follows the order of the key's lock.
CREATE TABLE outbox (
    position bigint PRIMARY KEY,
    shard    smallint NOT NULL
);

-- What the relay knows of each partition it has written to; a lower end means that the bus was emptied.
CREATE TABLE bus_partition (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    end_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- The id of each topic that it has written to; another id means that the topic is a new one, and empty.
CREATE TABLE bus_topic (
    topic text PRIMARY KEY,
    id    text NOT NULL
);

-- A rebuild of the bus in progress: the log is published again from here, shard by shard.
CREATE TABLE bus_rebuild (
    shard    smallint PRIMARY KEY,
    topics   text[] NOT NULL,
    position bigint NOT NULL,
    until    bigint NOT NULL
);

-- The inbox: the last sequence applied of each key, and whether later events wait.
CREATE TABLE inbox (
    topic    text NOT NULL,
    key      text NOT NULL,
    sequence integer NOT NULL DEFAULT 0,
    recorded timestamptz,
    waiting  text CHECK (waiting IN ('gap', 'parked')),
    since    timestamptz,
    PRIMARY KEY (key, topic)
) WITH (fillfactor = 80);
CREATE INDEX inbox_waiting ON inbox (since) WHERE waiting IS NOT NULL;

-- Events that cannot be applied yet: ahead of a gap, parked with a reason, or behind a parked one.
-- state 'unknown': a type this version does not know; it blocks nothing and is replayed after an upgrade.
CREATE TABLE pending (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic    text NOT NULL,
    key      text NOT NULL,
    sequence integer,
    event_id text NOT NULL,
    headers  jsonb NOT NULL,
    value    bytea,
    state    text NOT NULL CHECK (state IN ('waiting', 'parked', 'unknown')),
    reason   text NOT NULL,
    detail   text NOT NULL DEFAULT '',
    arrived  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX pending_event ON pending (key, topic, event_id);

-- What an operator did with parked events.
CREATE TABLE parked_act (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    who      text NOT NULL,
    act      text NOT NULL CHECK (act IN ('replay', 'drop')),
    topic    text NOT NULL,
    key      text NOT NULL,
    sequence integer,
    event_id text,
    outcome  text NOT NULL,
    reason   text
);

-- Up to which instant a source's partition has been read completely here, and the mark that is to be reached next.
CREATE TABLE complete (
    source      text NOT NULL,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    upto        timestamptz,
    next_offset bigint,
    next_upto   timestamptz,
    PRIMARY KEY (source, topic, partition)
);

-- How far the one process of a service has read where there are no groups: offsets of the topic with this id.
CREATE TABLE bus_read (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    id          text NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- Answers to writes that carried an Idempotency-Key.
CREATE TABLE idempotency (
    subject text NOT NULL,
    path    text NOT NULL,
    key     text NOT NULL,
    digest  bytea NOT NULL,
    status  smallint NOT NULL,
    headers jsonb NOT NULL,
    body    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, path, key)
);
CREATE INDEX idempotency_at ON idempotency (at);

-- Every read of unsealed personal data.
CREATE TABLE access_record (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    who    text NOT NULL,
    role   text NOT NULL,
    code   text NOT NULL,
    what   text NOT NULL
);
