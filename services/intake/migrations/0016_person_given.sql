-- Who was given back: until all has come, a later word of the same ledger is newer.
ALTER TABLE missing_person ADD COLUMN given boolean NOT NULL DEFAULT false;
