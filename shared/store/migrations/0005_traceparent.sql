-- In which span an event was stored, where traces are on: what is published twice is the same twice.
ALTER TABLE event ADD COLUMN traceparent text;
