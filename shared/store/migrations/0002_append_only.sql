-- The log is append-only, and the database holds it: what is stored is neither changed nor taken out. The payload of a
-- contact alone can go, when the person is erased; its number and digest stay.
ALTER TABLE event
    ADD COLUMN digest bytea,  -- of a payload that was erased: SHA-256 of its sealed bytes
    ADD COLUMN chain  bytea;  -- the hash over this event and all before it of its key, where the owner chains

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'event' THEN
        IF OLD.aggregatetype = 'contact' AND NEW.payload IS NULL
           AND NEW.digest = sha256(convert_to(OLD.payload, 'UTF8')) THEN
            OLD.payload := NULL;
            OLD.digest := NEW.digest;
            IF NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
        END IF;
    END IF;
    RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON event EXECUTE FUNCTION append_only();

-- Who read a person's data, newest first, and by dossier.
CREATE INDEX access_record_at ON access_record (at);
CREATE INDEX access_record_code ON access_record (code, number);
