-- That this database was restored, and from when its backup is: of acts recorded in between people were told before.
CREATE TABLE restored (
    at    timestamptz PRIMARY KEY,
    taken timestamptz NOT NULL
);
