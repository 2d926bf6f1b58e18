-- What routing keeps: of each dossier where it stands, of each route its steps, the transfers, the documents.

-- The projection of a dossier and its two lines of events. Rewritten with each event: the indexed columns do not change,
-- BRIN apart, so that an update stays on its page.
CREATE TABLE dossier (
    code              text PRIMARY KEY,
    state             smallint NOT NULL CHECK (state BETWEEN 1 AND 10),
    agency            text NOT NULL,
    deciding_agency   text NOT NULL,
    procedure         text NOT NULL,
    confidential      boolean NOT NULL,
    due_at            timestamptz,
    routed            boolean NOT NULL,
    last_event        uuid NOT NULL,
    transfer_sequence integer NOT NULL,
    transfer_recorded timestamptz,
    public_sequence   integer NOT NULL,
    public_recorded   timestamptz
) WITH (fillfactor = 70);
CREATE INDEX dossier_transfer_recorded ON dossier USING brin (transfer_recorded);
CREATE INDEX dossier_public_recorded ON dossier USING brin (public_recorded);

-- The frozen steps of a dossier's route, and the events that began it. No steps: its start was corrected away.
CREATE TABLE route (
    dossier text PRIMARY KEY REFERENCES dossier,
    steps   jsonb NOT NULL,
    started uuid,
    entered uuid
);

CREATE TABLE transfer (
    id              uuid PRIMARY KEY,
    dossier         text NOT NULL REFERENCES dossier,
    leg             uuid NOT NULL,
    step            integer NOT NULL,
    sender          text NOT NULL,
    receiver        text NOT NULL,
    state           text NOT NULL CHECK (state IN ('requested', 'sent', 'delivered', 'accepted', 'refused', 'completed',
                                                   'returned', 'recalled', 'rerouted')),
    attempt         integer NOT NULL,
    due_at          timestamptz,
    asked_at        timestamptz NOT NULL,
    changed_at      timestamptz NOT NULL,
    version         integer NOT NULL,
    reason          text,
    need            text CHECK (need IN ('supplement', 'correction')),
    result          text CHECK (result IN ('granted', 'denied')),
    note            text,
    documents       jsonb NOT NULL,
    redirected_from text,
    no_target       boolean NOT NULL,
    undone          boolean NOT NULL,
    replaces        uuid,
    replaced_by     uuid
) WITH (fillfactor = 80);
CREATE INDEX transfer_dossier ON transfer (dossier, id);
CREATE INDEX transfer_receiver ON transfer (receiver, state, id);
CREATE INDEX transfer_sender ON transfer (sender, state, id);

CREATE TABLE document (
    arrival    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         text NOT NULL UNIQUE,
    number     text NOT NULL,
    date       date NOT NULL,
    kind       smallint NOT NULL CHECK (kind BETWEEN 0 AND 3),
    sender     text NOT NULL,
    receiver   text NOT NULL,
    title      text NOT NULL,
    state      text NOT NULL CHECK (state IN ('01', '02', '03', '04', '05', '06', '13', '15', '16')),
    sent_at    timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    dossier    text,
    replaces   text REFERENCES document (id),
    ref        text,
    digest     text,
    before     text,
    assignee   text,
    reason     text,
    version    integer NOT NULL,
    recorded   timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX document_dossier ON document (dossier, arrival) WHERE dossier IS NOT NULL;
CREATE INDEX document_receiver ON document (receiver, arrival);
CREATE INDEX document_sender ON document (sender, arrival);
CREATE INDEX document_replaces ON document (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX document_recorded ON document USING brin (recorded);

-- For reconciliation: each key's last sequence on the topics that routing owns, and when it was recorded.
CREATE VIEW head (topic, key, sequence, recorded) AS
SELECT 'lienthong.transfer.v1'::text, code, transfer_sequence, transfer_recorded
FROM dossier WHERE transfer_sequence > 0
UNION ALL
SELECT 'lienthong.public.dossier.v1'::text, code, public_sequence, public_recorded
FROM dossier WHERE public_sequence > 0
UNION ALL
SELECT 'lienthong.document.v1'::text, id, version, recorded FROM document;
