-- What stats holds: each dossier's acts, and the rectangles that they make in two times, when it was so (valid) and
-- when it was known (known). A question at (as_of, known_at) finds at most one rectangle of a dossier.

-- A dossier as its events leave it. `acts` are those that move figures, in their order: what the rectangles follow from.
CREATE TABLE dossier (
    code         text PRIMARY KEY,
    topic        text NOT NULL,             -- where its events come from: the site's own or a lower site's copies
    agency       text NOT NULL,
    procedure    text NOT NULL,
    field        text NOT NULL,
    channel      text NOT NULL,
    state        smallint NOT NULL,
    confidential boolean NOT NULL,
    began        bigint NOT NULL,           -- recorded time of the first event, microseconds since 1970
    acts         jsonb NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE fact (
    code         text NOT NULL,
    valid_from   timestamptz NOT NULL,
    valid_to     timestamptz NOT NULL,
    known_from   timestamptz NOT NULL,
    known_to     timestamptz NOT NULL,
    agency       text NOT NULL,
    deciding     text NOT NULL,
    procedure    text NOT NULL,
    field        text NOT NULL,
    channel      text NOT NULL,
    phase        text NOT NULL CHECK (phase IN ('pending', 'ended', 'refused')),
    received_at  timestamptz,
    due_at       timestamptz,
    paused       boolean NOT NULL,
    pause_late   boolean NOT NULL,          -- the clock stands still since after the due instant
    ended_at     timestamptz,               -- or refused at
    outcome      text CHECK (outcome IN ('early', 'on_time', 'late')),
    elapsed      bigint,                    -- microseconds from receipt to end, less every pause
    listed       boolean NOT NULL,
    digitised    boolean NOT NULL,
    reused       boolean NOT NULL,
    population   boolean NOT NULL,
    electronic   boolean NOT NULL,
    with_fee     boolean NOT NULL,
    paid_online  boolean NOT NULL,
    repeated     boolean NOT NULL,          -- more than one supplement request
    PRIMARY KEY (code, valid_from, known_from),
    CHECK (valid_from < valid_to AND known_from < known_to)
) WITH (fillfactor = 90);
CREATE INDEX fact_ended ON fact (agency, ended_at) WHERE phase <> 'pending';
CREATE INDEX fact_pending ON fact (agency, valid_to) WHERE phase = 'pending';
CREATE INDEX fact_current ON fact (agency, received_at) WHERE valid_to = 'infinity' AND known_to = 'infinity';
CREATE INDEX fact_deciding_ended ON fact (deciding, ended_at) WHERE phase <> 'pending';
CREATE INDEX fact_deciding_pending ON fact (deciding, valid_to) WHERE phase = 'pending';

-- Acts that are counted by themselves. `undone`: recorded time of the correction that took one back.
CREATE TABLE extension (
    id        uuid PRIMARY KEY,
    code      text NOT NULL,
    agency    text NOT NULL,
    deciding  text NOT NULL,
    procedure text NOT NULL,
    field     text NOT NULL,
    happened  timestamptz NOT NULL,
    recorded  timestamptz NOT NULL,
    undone    timestamptz NOT NULL DEFAULT 'infinity'
);
CREATE INDEX extension_agency ON extension (agency, happened);
CREATE INDEX extension_deciding ON extension (deciding, happened);
CREATE INDEX extension_code ON extension (code);

CREATE TABLE rating (
    id         uuid PRIMARY KEY,
    code       text NOT NULL,
    agency     text NOT NULL,
    deciding   text NOT NULL,
    procedure  text NOT NULL,
    field      text NOT NULL,
    happened   timestamptz NOT NULL,
    recorded   timestamptz NOT NULL,
    undone     timestamptz NOT NULL DEFAULT 'infinity',
    content    boolean NOT NULL,            -- satisfied or very satisfied
    complained boolean NOT NULL
);
CREATE INDEX rating_agency ON rating (agency, happened);
CREATE INDEX rating_deciding ON rating (deciding, happened);
CREATE INDEX rating_code ON rating (code);

-- Legs: one transfer's work by one agency, in the same two times. Their procedure, field and channel are the dossier's.
CREATE TABLE leg (
    transfer uuid PRIMARY KEY,
    dossier  text NOT NULL,
    acts     jsonb NOT NULL
);
CREATE INDEX leg_dossier ON leg (dossier);

CREATE TABLE leg_fact (
    transfer    uuid NOT NULL,
    dossier     text NOT NULL,
    agency      text NOT NULL,
    valid_from  timestamptz NOT NULL,
    valid_to    timestamptz NOT NULL,
    known_from  timestamptz NOT NULL,
    known_to    timestamptz NOT NULL,
    phase       text NOT NULL CHECK (phase IN ('pending', 'ended', 'refused')),
    received_at timestamptz,
    due_at      timestamptz,
    ended_at    timestamptz,
    outcome     text CHECK (outcome IN ('early', 'on_time', 'late')),
    elapsed     bigint,
    PRIMARY KEY (transfer, valid_from, known_from),
    CHECK (valid_from < valid_to AND known_from < known_to)
);
CREATE INDEX leg_fact_dossier ON leg_fact (dossier);
CREATE INDEX leg_fact_ended ON leg_fact (agency, ended_at) WHERE phase <> 'pending';
CREATE INDEX leg_fact_pending ON leg_fact (agency, valid_to) WHERE phase = 'pending';

CREATE VIEW working AS
SELECT l.dossier AS code, l.valid_from, l.valid_to, l.known_from, l.known_to, l.agency, l.agency AS deciding,
       coalesce(d.procedure, '') AS procedure, coalesce(d.field, '') AS field, coalesce(d.channel, 'counter') AS channel,
       l.phase, l.received_at, l.due_at, false AS paused, false AS pause_late, l.ended_at, l.outcome, l.elapsed,
       false AS listed, false AS digitised, false AS reused, false AS population, false AS electronic,
       false AS with_fee, false AS paid_online, false AS repeated
FROM leg_fact l LEFT JOIN dossier d ON d.code = l.dossier;

-- Petitions and documents are never corrected: their events as they came.
CREATE TABLE petition_act (
    petition text NOT NULL,
    sequence integer NOT NULL,
    type     text NOT NULL,
    agency   text NOT NULL,
    happened timestamptz NOT NULL,
    recorded timestamptz NOT NULL,
    due_at   timestamptz,
    content  boolean,
    PRIMARY KEY (petition, sequence)
);
CREATE INDEX petition_act_agency ON petition_act (agency, happened);

CREATE TABLE document_act (
    document    text NOT NULL,
    sequence    integer NOT NULL,
    type        text NOT NULL,
    state       text NOT NULL,
    from_agency text NOT NULL,
    to_agency   text NOT NULL,
    happened    timestamptz NOT NULL,
    recorded    timestamptz NOT NULL,
    PRIMARY KEY (document, sequence)
);
CREATE INDEX document_act_sent ON document_act (from_agency, happened) WHERE type = 'document.sent';
CREATE INDEX document_act_arrived ON document_act (to_agency, happened) WHERE type = 'document.arrived';

-- The periods that somebody has asked for, each with the latest instant that it was judged at, and when.
CREATE TABLE asked (
    agency   text NOT NULL,
    subtree  boolean NOT NULL,
    from_day date NOT NULL,
    to_day   date NOT NULL,
    judged   timestamptz NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (agency, from_day, to_day, subtree)
);

-- Figures of a period already closed or asked for that an event changed afterwards. Written once, never recomputed.
CREATE TABLE restatement (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dossier   text NOT NULL,
    agency    text NOT NULL,
    from_day  date NOT NULL,
    to_day    date NOT NULL,
    changes   jsonb NOT NULL,               -- {"resolved.late": 1, "pending.overdue": -1}
    event     uuid NOT NULL,
    type      text NOT NULL,
    happened  timestamptz NOT NULL,
    known     timestamptz NOT NULL,
    published boolean NOT NULL              -- on lienthong.indicator.v1, or of no month that is told there
);
CREATE INDEX restatement_agency ON restatement (agency, number);
CREATE INDEX restatement_unpublished ON restatement (agency, from_day) WHERE NOT published;

-- Agencies whose figures events have moved since the last snapshot.
CREATE SEQUENCE mark;
CREATE TABLE moved (
    agency text PRIMARY KEY,
    mark   bigint NOT NULL
);

-- What was last published of an agency and period, and the sequence of its key.
CREATE TABLE snapshot (
    agency   text NOT NULL,
    grain    text NOT NULL,
    period   text NOT NULL,
    sequence integer NOT NULL,
    recorded timestamptz NOT NULL,
    figures  jsonb NOT NULL,
    PRIMARY KEY (agency, grain, period)
);

CREATE VIEW head AS
SELECT 'lienthong.indicator.v1' AS topic, agency || ',' || grain || ',' || period AS key, sequence, recorded FROM snapshot;
