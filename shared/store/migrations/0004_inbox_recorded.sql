-- What was applied of the last hours is compared with its owner every minute: small, and enough to leave out what is older.

CREATE INDEX inbox_recorded ON inbox USING brin (recorded) WITH (autosummarize = on);
