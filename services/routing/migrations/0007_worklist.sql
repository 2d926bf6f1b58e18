-- What an agency sent and got back: each waits for its sender's next step, for as long as nothing replaces it.
CREATE INDEX transfer_back ON transfer (sender, changed_at, id)
    WHERE state IN ('refused', 'returned', 'recalled') AND replaced_by IS NULL AND NOT undone;
