-- A person who is erased is taken out of the ledgers of links, too. `person`: the contact_ref of the person that an envelope
-- carries, until then; the digest stays that of the envelope as it was signed.
ALTER TABLE link_sent ADD COLUMN person text;
ALTER TABLE link_received ADD COLUMN person text;
UPDATE link_sent SET person = substring(body FROM '"contact_ref":"([0-9A-Za-z._:-]{1,100})"') WHERE kind = 'ask';
UPDATE link_received SET person = substring(body FROM '"contact_ref":"([0-9A-Za-z._:-]{1,100})"') WHERE kind = 'ask';
CREATE INDEX link_sent_person ON link_sent (person) WHERE person IS NOT NULL;
CREATE INDEX link_received_person ON link_received (person) WHERE person IS NOT NULL;

-- Whom a home has erased: nothing that comes later brings that person back. `site`: that home.
CREATE TABLE erased (
    site        text NOT NULL,
    contact_ref text NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (site, contact_ref)
);
CREATE INDEX erased_at ON erased (site, at);
CREATE INDEX sealed_person ON sealed (contact_ref);
