-- One row a dossier: what lists and locks need in columns, the fold of its events in `body`.
CREATE TABLE dossier (
    code            text PRIMARY KEY,
    agency          text NOT NULL,
    deciding_agency text NOT NULL,
    procedure       text NOT NULL,
    state           smallint NOT NULL CHECK (state BETWEEN 1 AND 10),
    received_at     timestamptz,
    due_at          timestamptz,
    paused          boolean NOT NULL,
    overdue_from    timestamptz,
    next_tick       timestamptz,
    contact_ref     text NOT NULL,
    sender          text,
    sequence        integer NOT NULL,
    recorded        timestamptz NOT NULL,
    body            text NOT NULL
) WITH (fillfactor = 85);
CREATE INDEX dossier_agency ON dossier (agency, code);
CREATE INDEX dossier_deciding ON dossier (deciding_agency, code) WHERE deciding_agency <> agency;
CREATE INDEX dossier_state ON dossier (agency, state, code) WHERE state NOT IN (3, 8, 9, 10);
CREATE INDEX dossier_overdue ON dossier (agency, overdue_from) WHERE overdue_from IS NOT NULL;
CREATE INDEX dossier_tick ON dossier (next_tick) WHERE next_tick IS NOT NULL;
CREATE INDEX dossier_contact ON dossier (contact_ref);
CREATE INDEX dossier_sender ON dossier (sender, code) WHERE sender IS NOT NULL;
CREATE INDEX dossier_recorded ON dossier (recorded);

-- Dossiers of other sites that were transferred here; they are acted on at their home alone.
CREATE TABLE elsewhere (
    code   text NOT NULL,
    agency text NOT NULL,
    PRIMARY KEY (code, agency)
);

-- The last number issued to an agency on a local day.
CREATE TABLE counter (
    agency text NOT NULL,
    day    date NOT NULL,
    last   integer NOT NULL,
    PRIMARY KEY (agency, day)
);

-- A person, sealed: the data under the person's own key, that key wrapped to this site. Search goes by keyed hash.
CREATE TABLE contact (
    contact_ref text PRIMARY KEY,
    person_hash text UNIQUE,
    phone_hash  text,
    nonce       text,
    ciphertext  text,
    wrapped     text,
    sequence    integer NOT NULL,
    recorded    timestamptz NOT NULL
);
CREATE INDEX contact_phone ON contact (phone_hash) WHERE phone_hash IS NOT NULL;
CREATE INDEX contact_recorded ON contact (recorded);

-- What an applicant wrote beside a rating, sealed under the same key.
CREATE TABLE remark (
    code       text NOT NULL REFERENCES dossier (code),
    sequence   integer NOT NULL,
    nonce      text NOT NULL,
    ciphertext text NOT NULL,
    PRIMARY KEY (code, sequence)
);

-- Imports: the source's own names for dossiers, and which lines have been applied (by the digest of their JSON value).
CREATE TABLE source (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name   text NOT NULL UNIQUE
);
CREATE TABLE reference (
    source integer NOT NULL REFERENCES source (number),
    ref    text NOT NULL,
    code   text NOT NULL,
    PRIMARY KEY (source, ref)
);
CREATE TABLE imported (
    source integer NOT NULL REFERENCES source (number),
    digest uuid NOT NULL,
    code   text NOT NULL,
    PRIMARY KEY (source, digest)
);
CREATE TABLE imported_id (
    source integer NOT NULL REFERENCES source (number),
    id     text NOT NULL,
    digest uuid NOT NULL,
    PRIMARY KEY (source, id)
);

-- Petitions. What they say and what is answered is sealed under a key of each petition's own.
CREATE TABLE petition (
    id          uuid PRIMARY KEY,
    agency      text NOT NULL,
    kind        text NOT NULL,
    state       text NOT NULL CHECK (state IN ('filed', 'answered')),
    filed_at    timestamptz NOT NULL,
    due_at      timestamptz NOT NULL,
    answered_at timestamptz,
    rating      text,
    sender      text NOT NULL,
    nonce       text NOT NULL,
    ciphertext  text NOT NULL,
    wrapped     text NOT NULL,
    answer_nonce      text,
    answer_ciphertext text,
    sequence    integer NOT NULL,
    recorded    timestamptz NOT NULL
);
CREATE INDEX petition_agency ON petition (agency, id);
CREATE INDEX petition_sender ON petition (sender, id);
CREATE INDEX petition_recorded ON petition (recorded);

-- Wrong pins on the tracking page, per dossier code as asked, whether it exists or not.
CREATE TABLE guess (
    code  text PRIMARY KEY,
    wrong integer NOT NULL,
    since timestamptz NOT NULL
);
CREATE INDEX guess_since ON guess (since);

CREATE VIEW head AS
SELECT 'lienthong.dossier.v1' AS topic, code AS key, sequence, recorded FROM dossier
UNION ALL SELECT 'lienthong.contact.v1', contact_ref, sequence, recorded FROM contact
UNION ALL SELECT 'lienthong.petition.v1', id::text, sequence, recorded FROM petition;
