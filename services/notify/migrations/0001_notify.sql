-- What notify keeps: dossiers as notices need them, sealed contacts, acts that wait for their contact, notices, the
-- reasons why nobody was told, postal orders.

CREATE TABLE dossier (
    code            text PRIMARY KEY,
    state           smallint NOT NULL,
    agency          text NOT NULL,
    deciding_agency text NOT NULL,
    procedure       text NOT NULL,
    contact_ref     text,
    return_by       text NOT NULL,
    received_at     timestamptz,
    due_at          timestamptz,
    fee             bigint NOT NULL,
    paid            bigint NOT NULL,
    last_paid       bigint NOT NULL,
    sequence        integer NOT NULL DEFAULT 0,  -- of the last event published for it
    recorded        timestamptz
) WITH (fillfactor = 80);
CREATE INDEX dossier_contact ON dossier (contact_ref);
CREATE INDEX dossier_recorded ON dossier USING brin (recorded);

-- A null key is an erased person: ciphertext and key are gone.
CREATE TABLE contact (
    contact_ref text PRIMARY KEY,
    nonce       text,
    ciphertext  text,
    wrapped     text
);

-- Acts that ask for a notice and wait, a bounded time, for their applicant's contact.
CREATE TABLE telling (
    event       uuid PRIMARY KEY,
    dossier     text NOT NULL,
    agency      text NOT NULL,
    act         text NOT NULL,
    happened    timestamptz NOT NULL,
    recorded    timestamptz NOT NULL,
    contact_ref text NOT NULL,
    facts       jsonb NOT NULL,
    met_by      uuid,
    decide_by   timestamptz NOT NULL
);
CREATE INDEX telling_contact ON telling (contact_ref);
CREATE INDEX telling_dossier ON telling (dossier);
CREATE INDEX telling_decide ON telling (decide_by);

-- Promise 9: an act that asked for a notice and got none, with the reason.
CREATE TABLE untold (
    event    uuid PRIMARY KEY,
    dossier  text NOT NULL,
    act      text NOT NULL,
    recorded timestamptz NOT NULL,
    reason   text NOT NULL
);
CREATE INDEX untold_recorded ON untold USING brin (recorded);

-- Recipient and text lie sealed under the person's own data key, until they are too old or the person is erased.
CREATE TABLE notice (
    id           uuid PRIMARY KEY,
    dossier      text NOT NULL,
    agency       text NOT NULL,
    act          text NOT NULL,
    event        uuid NOT NULL,
    act_recorded timestamptz NOT NULL,
    recipient    text NOT NULL,
    channel      text NOT NULL CHECK (channel IN ('sms', 'postal')),
    state        text NOT NULL CHECK (state IN
        ('planned', 'held', 'sent', 'delivered', 'failed', 'expired', 'superseded', 'unknown')),
    matter       text,
    template     text NOT NULL,
    version      integer NOT NULL,
    parts        smallint NOT NULL,
    provider     text,
    attempts     integer NOT NULL,
    rounds       integer NOT NULL,
    tried        text[] NOT NULL,
    asked        text[] NOT NULL,
    bound        boolean NOT NULL,
    in_flight    boolean NOT NULL,
    mark         bigint,  -- where the provider's file ended when this attempt began
    due          boolean NOT NULL,
    next_at      timestamptz,
    held_until   timestamptz,
    planned_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    sent_at      timestamptz,
    delivered_at timestamptz,
    post_at      timestamptz,
    reason       text,
    nonce        text,
    ciphertext   text,
    wrapped      text
) WITH (fillfactor = 80);
-- Promise 9, told once: one notice per event, recipient and channel.
CREATE UNIQUE INDEX notice_once ON notice (event, recipient, channel);
CREATE INDEX notice_dossier ON notice (dossier, id);
CREATE INDEX notice_act_recorded ON notice USING brin (act_recorded);
CREATE INDEX notice_unsent ON notice (recipient, channel, id) WHERE state IN ('planned', 'held');
CREATE INDEX notice_due ON notice (id) WHERE due;
CREATE INDEX notice_next ON notice (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX notice_held ON notice (id) WHERE state = 'held';
CREATE INDEX notice_in_flight ON notice (id) WHERE in_flight;
CREATE INDEX notice_expires ON notice (expires_at) WHERE state IN ('planned', 'held', 'unknown');
CREATE INDEX notice_post ON notice (post_at) WHERE post_at IS NOT NULL;
CREATE INDEX notice_state ON notice (state, id) WHERE state NOT IN ('sent', 'delivered');

-- Addresses lie with the contact, a letter's text with its notice.
CREATE TABLE postal_order (
    id             uuid PRIMARY KEY,
    dossier        text NOT NULL,
    agency         text NOT NULL,
    notice         uuid,
    kind           text NOT NULL CHECK (kind IN ('collect', 'deliver')),
    carrier        text NOT NULL,
    state          text NOT NULL CHECK (state IN
        ('planned', 'ordered', 'collected', 'in-transit', 'delivered', 'returned', 'cancelled')),
    contact_ref    text NOT NULL,
    fee_to_collect bigint NOT NULL,
    planned_at     timestamptz NOT NULL,
    due            boolean NOT NULL,
    in_flight      boolean NOT NULL,
    mark           bigint,
    rounds         integer NOT NULL,
    next_at        timestamptz,
    amount         bigint,
    reason         text,
    changed_at     timestamptz
);
CREATE INDEX postal_order_dossier ON postal_order (dossier, id);
CREATE INDEX postal_order_contact ON postal_order (contact_ref);
CREATE INDEX postal_order_due ON postal_order (id) WHERE due;
CREATE INDEX postal_order_next ON postal_order (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX postal_order_in_flight ON postal_order (id) WHERE in_flight;

-- What reconciliation compares with the consumers of lienthong.notice.v1.
CREATE VIEW head AS
    SELECT 'lienthong.notice.v1'::text AS topic, code AS key, sequence, recorded FROM dossier WHERE sequence > 0;
