-- PostgreSQL before 17 cannot subtract from an instant that never comes: what is short or long is said by adding.
DROP INDEX fact_pending_short;
DROP INDEX fact_pending_long;
DROP INDEX fact_past_short;
DROP INDEX fact_past_long;
DROP INDEX fact_deciding_pending_short;
DROP INDEX fact_deciding_pending_long;
DROP INDEX fact_deciding_past_short;
DROP INDEX fact_deciding_past_long;

CREATE INDEX fact_pending_short ON fact (agency, valid_from)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' <= valid_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_pending_long ON fact (agency, valid_to)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' > valid_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_past_short ON fact (agency, known_from)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' <= known_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_past_long ON fact (agency, known_to)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' > known_from AT TIME ZONE 'UTC' + interval '32 days';

CREATE INDEX fact_deciding_pending_short ON fact (deciding, valid_from)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' <= valid_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_deciding_pending_long ON fact (deciding, valid_to)
    WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' > valid_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_deciding_past_short ON fact (deciding, known_from)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' <= known_from AT TIME ZONE 'UTC' + interval '32 days';
CREATE INDEX fact_deciding_past_long ON fact (deciding, known_to)
    WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' > known_from AT TIME ZONE 'UTC' + interval '32 days';
