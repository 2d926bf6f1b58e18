-- Documents between sites: the sender's site when it is another (`home`), the receiver's when it is another (`worked_at`);
-- `told`: up to which of its events here the other site has been told.
ALTER TABLE document
    ADD COLUMN home      text,
    ADD COLUMN worked_at text,
    ADD COLUMN told      integer NOT NULL DEFAULT 0;
CREATE INDEX document_to_tell ON document (changed_at, id)
    WHERE told < version AND (home IS NOT NULL OR worked_at IS NOT NULL);
