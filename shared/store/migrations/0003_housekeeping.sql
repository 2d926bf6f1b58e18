-- Under which wrapping key everything here lies: what was wrapped under an older one has been wrapped anew.
CREATE TABLE rewrapped (
    key_id text PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now()
);
