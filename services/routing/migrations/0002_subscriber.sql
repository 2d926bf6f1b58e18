-- Who reads events from outside, and how far each subscriber's own view of a dossier has come.

CREATE TABLE subscriber (
    code     text PRIMARY KEY,
    tier     text NOT NULL CHECK (tier IN ('public', 'agency')),
    topics   text[] NOT NULL,
    view     text[],  -- the agencies whose dossiers its own topic shows; null: it has no topic of its own
    added    timestamptz NOT NULL DEFAULT now(),
    added_by text NOT NULL
);

-- The line of one dossier on one subscriber's topic: contiguous from 1, as everywhere.
CREATE TABLE view_head (
    subscriber text NOT NULL REFERENCES subscriber ON DELETE CASCADE,
    dossier    text NOT NULL,
    sequence   integer NOT NULL,
    recorded   timestamptz NOT NULL,
    PRIMARY KEY (dossier, subscriber)
);
CREATE INDEX view_head_subscriber ON view_head (subscriber);
