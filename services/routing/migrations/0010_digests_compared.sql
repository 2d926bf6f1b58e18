-- Where both ledgers of a day part: the places of the envelopes, as both sides have told each other.
ALTER TABLE link_digest ADD COLUMN differs text[] NOT NULL DEFAULT '{}';
