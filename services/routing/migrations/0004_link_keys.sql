-- Which of our signing keys the peer is known to know: what goes to it is signed with the newest of them.
ALTER TABLE link ADD COLUMN knows text[] NOT NULL DEFAULT '{}';
