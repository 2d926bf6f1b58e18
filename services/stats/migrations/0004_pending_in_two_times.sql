-- A question about the past looks for what was pending at an instant, as known at an instant. An index on one end of an
-- interval alone makes it read everything since; but most intervals are short: those are found by where they begin, within
-- the length that makes them short, and the few long ones by where they end. What is still known is searched by when it
-- was so, what is no longer known by when it was known.
DROP INDEX fact_pending;
DROP INDEX fact_deciding_pending;

CREATE INDEX fact_pending_short ON fact (agency, valid_from)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to - valid_from <= interval '32 days';
CREATE INDEX fact_pending_long ON fact (agency, valid_to)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to - valid_from > interval '32 days';
CREATE INDEX fact_past_short ON fact (agency, known_from)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to - known_from <= interval '32 days';
CREATE INDEX fact_past_long ON fact (agency, known_to)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to - known_from > interval '32 days';

CREATE INDEX fact_deciding_pending_short ON fact (deciding, valid_from)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to - valid_from <= interval '32 days';
CREATE INDEX fact_deciding_pending_long ON fact (deciding, valid_to)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to - valid_from > interval '32 days';
CREATE INDEX fact_deciding_past_short ON fact (deciding, known_from)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to - known_from <= interval '32 days';
CREATE INDEX fact_deciding_past_long ON fact (deciding, known_to)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to - known_from > interval '32 days';

-- What is overdue now is found by its due instant.
CREATE INDEX fact_due ON fact (agency, due_at)
    WHERE phase = 'pending' AND valid_to = 'infinity' AND known_to = 'infinity';
