-- Attachments by reference: what lies in storage under each reference, and whether it is what the digest says.
CREATE TABLE attachment (
    code    text NOT NULL,
    ref     text NOT NULL,
    name    text NOT NULL,
    digest  text,
    state   text NOT NULL CHECK (state IN
        ('waiting', 'whole', 'differs', 'missing', 'not-allowed', 'too-large', 'no-digest')),
    size    bigint,
    sha256  text,
    checked timestamptz,
    next_at timestamptz,
    PRIMARY KEY (code, name, ref)
);
CREATE INDEX attachment_waiting ON attachment (next_at) WHERE state = 'waiting';

-- How far the dossiers have been looked through for references.
CREATE TABLE attachment_read (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    since timestamptz NOT NULL,
    after text NOT NULL
);
