-- The statements of what every service has: log, outbox, inbox, pending. {schema} is the service's own.

-- name: now
SELECT clock_timestamp()

-- name: outbox_put
-- The positions of a batch's events, in their order, each pointed to in the outbox.
INSERT INTO {schema}.outbox (position, shard)
SELECT nextval('{schema}.position'), hashtext(key) & 3 FROM unnest($1::text[]) WITH ORDINALITY AS k(key, line) ORDER BY line
RETURNING position

-- name: ledger
SELECT id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode, traceparent
FROM {schema}.event
WHERE aggregateid = $2 AND aggregatetype = $1 AND sequence > $3
ORDER BY sequence
LIMIT $4

-- name: ledger_of_type
SELECT e.id, e.aggregatetype, e.aggregateid, e.type, e.payload, e.sequence, e.source, e.happened, e.recorded, e.mode,
       e.traceparent
FROM unnest($2::text[]) AS w(key)
JOIN {schema}.event e ON e.aggregateid = w.key AND e.aggregatetype = $1 AND e.type = $3
ORDER BY e.aggregateid, e.sequence

-- name: traceparents
-- Of each key the newest event of a type that was traced.
SELECT DISTINCT ON (aggregateid) aggregateid, traceparent FROM {schema}.event
WHERE aggregateid = ANY ($1::text[]) AND type = $2 AND traceparent IS NOT NULL
ORDER BY aggregateid, sequence DESC

-- name: payloads_forget
-- Erased: what was said of a person goes, its number and digest stay. Nothing else ever leaves the log.
UPDATE {schema}.event SET digest = sha256(convert_to(payload, 'UTF8')), payload = NULL
WHERE aggregateid = ANY ($2::text[]) AND aggregatetype = $1 AND payload IS NOT NULL

-- name: chained
-- A key's events with their chain, in order.
SELECT id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode, chain
FROM {schema}.event
WHERE aggregateid = $2 AND aggregatetype = $1 AND sequence > $3
ORDER BY sequence
LIMIT $4

-- name: chained_between
-- The events recorded in a span of time, key by key, each key in order.
SELECT id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode, chain
FROM {schema}.event
WHERE aggregatetype = $1 AND recorded >= $2 AND recorded < $3
ORDER BY aggregateid COLLATE "C", sequence

-- name: chains_before
-- What the chain of these keys stood at before these sequences.
SELECT e.aggregateid, e.chain
FROM unnest($2::text[], $3::int[]) AS w(key, sequence)
JOIN {schema}.event e ON e.aggregateid = w.key AND e.sequence = w.sequence - 1 AND e.aggregatetype = $1

-- name: heads_between
-- Where each key stood at the end of a span of time in which it had an event, in the order of the keys.
SELECT DISTINCT ON (aggregateid COLLATE "C") aggregateid, sequence, chain,
       count(*) OVER (PARTITION BY aggregateid) AS events
FROM {schema}.event
WHERE aggregatetype = $1 AND recorded >= $2 AND recorded < $3
ORDER BY aggregateid COLLATE "C", sequence DESC

-- name: log_page
-- A page of the log in the order of its keys, as one JSON text: PostgreSQL writes it, and no process of ours takes it apart
-- to put it together again. Items: [family, key, sequence, id, type, happened, recorded (microseconds), mode, data].
SELECT '[' || coalesce(string_agg(line, ',' ORDER BY aggregateid, sequence, aggregatetype), '') || ']'
FROM (SELECT aggregateid, sequence, aggregatetype,
             '["' || aggregatetype || '",' || to_json(aggregateid)::text || ',' || sequence || ',"' || id || '","' || type
             || '",' || (extract(epoch FROM happened) * 1000000)::bigint || ','
             || (extract(epoch FROM recorded) * 1000000)::bigint || ',"' || mode || '",' || coalesce(payload, 'null')
             || ']' AS line
      FROM {schema}.event
      WHERE aggregatetype = ANY ($1::text[]) AND (aggregateid, sequence, aggregatetype) > ($2, $3::int, $4)
      ORDER BY aggregateid, sequence, aggregatetype
      LIMIT $5) page

-- name: unpublished
-- Each pointer finds its event by the key of the log (OFFSET 0 keeps it so). A merge of both, which the planner likes when
-- it believes the outbox to be long, reads the log from its first event on.
SELECT o.position, e.id, e.aggregatetype, e.aggregateid, e.type, e.payload, e.sequence, e.source, e.happened,
       e.recorded, e.mode, e.traceparent
FROM (SELECT position FROM {schema}.outbox WHERE shard = ANY ($1::smallint[]) ORDER BY position LIMIT $2) o
    CROSS JOIN LATERAL (SELECT * FROM {schema}.event WHERE position = o.position OFFSET 0) e
ORDER BY o.position

-- name: published
-- The commit is not waited for: what a crash of the database brings back is published again, and is a duplicate.
DELETE FROM {schema}.outbox USING (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
WHERE position = ANY ($1::bigint[])

-- name: backlog
SELECT count(*) AS waiting, min(e.recorded) AS oldest
FROM (SELECT position FROM {schema}.outbox ORDER BY position LIMIT 100000) o JOIN {schema}.event e USING (position)

-- name: under_way
-- No transaction that may still commit began before this instant. It is asked before `oldest_unpublished`: what commits
-- in between is then seen there.
SELECT least(
    (SELECT min(xact_start) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'lienthong' AND pid <> pg_backend_pid()),
    clock_timestamp())

-- name: oldest_unpublished
-- When the oldest unpublished event was recorded. Positions do not follow the recorded times of different keys.
SELECT min(e.recorded) FROM {schema}.outbox o JOIN {schema}.event e USING (position)

-- name: bus_partitions
SELECT topic, partition, end_offset FROM {schema}.bus_partition

-- name: bus_partition_put
INSERT INTO {schema}.bus_partition (topic, partition, end_offset)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[])
ON CONFLICT (topic, partition) DO UPDATE SET end_offset = excluded.end_offset

-- name: bus_topics
SELECT topic, id FROM {schema}.bus_topic

-- name: bus_topic_put
INSERT INTO {schema}.bus_topic (topic, id) SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (topic) DO UPDATE SET id = excluded.id

-- name: rebuild_begin
-- From the start of the window: the last $2 of time, or the newest $3 bytes of payload if these begin later.
-- A shard that is already being rebuilt starts again with the topics of both.
WITH recent AS (
    SELECT position, coalesce(length(payload), 0) + 400 AS bytes FROM {schema}.event
    WHERE recorded >= clock_timestamp() - $2::interval),
newest AS (SELECT position, sum(bytes) OVER (ORDER BY position DESC) AS bytes FROM recent),
last AS (SELECT coalesce(max(position), 0) AS position FROM {schema}.event)
INSERT INTO {schema}.bus_rebuild (shard, topics, position, until)
SELECT s.shard, $4::text[],
    coalesce((SELECT min(position) - 1 FROM newest WHERE bytes <= $3::bigint), last.position), last.position
FROM unnest($1::smallint[]) AS s(shard), last
ON CONFLICT (shard) DO UPDATE SET position = excluded.position, until = excluded.until,
    topics = (SELECT array_agg(DISTINCT t) FROM unnest(bus_rebuild.topics || excluded.topics) t)

-- name: rebuilds
SELECT shard, topics, position, until FROM {schema}.bus_rebuild WHERE shard = ANY ($1::smallint[])

-- name: rebuild_page
-- Of an erased person only the tombstone is published again. What is still in the outbox follows from there: some of it
-- may be older than the window, and must come before what follows it.
SELECT position, id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode, traceparent
FROM {schema}.event e
WHERE position > $1 AND position <= $2 AND (hashtext(aggregateid) & 3) = $3 AND aggregatetype = ANY ($4::text[])
  AND (payload IS NOT NULL OR type = 'contact.erased')
  AND NOT EXISTS (SELECT 1 FROM {schema}.outbox o WHERE o.position = e.position)
ORDER BY position
LIMIT $5

-- name: rebuild_moved
UPDATE {schema}.bus_rebuild SET position = $2 WHERE shard = $1

-- name: rebuild_done
DELETE FROM {schema}.bus_rebuild WHERE shard = $1

-- name: places
SELECT i.topic, i.key, i.sequence, i.waiting
FROM {schema}.inbox i JOIN unnest($1::text[], $2::text[]) AS w(topic, key) USING (topic, key)
ORDER BY i.key, i.topic
FOR UPDATE OF i

-- name: places_new
INSERT INTO {schema}.inbox (topic, key, sequence, recorded, waiting, since)
SELECT topic, key, sequence, recorded, waiting, CASE WHEN waiting IS NOT NULL THEN clock_timestamp() END
FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[], $5::text[])
     AS n(topic, key, sequence, recorded, waiting)
ON CONFLICT (key, topic) DO NOTHING
RETURNING 1

-- name: places_move
UPDATE {schema}.inbox i
SET sequence = n.sequence, recorded = coalesce(n.recorded, i.recorded), waiting = n.waiting,
    since = CASE WHEN n.waiting IS NULL THEN NULL WHEN n.waiting = i.waiting THEN i.since ELSE clock_timestamp() END
FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[], $5::text[])
     AS n(topic, key, sequence, recorded, waiting)
WHERE i.topic = n.topic AND i.key = n.key

-- name: pending_put
INSERT INTO {schema}.pending (topic, key, sequence, event_id, headers, value, state, reason, detail)
SELECT topic, key, sequence, event_id, headers::jsonb, value, state, reason, detail
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[])
     AS p(topic, key, sequence, event_id, headers, value, state, reason, detail)
ON CONFLICT (key, topic, event_id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
    detail = excluded.detail
    WHERE pending.state = 'waiting' AND excluded.state IN ('parked', 'unknown')

-- name: pending_of
SELECT p.number, p.topic, p.key, p.sequence, p.event_id, p.headers, p.value, p.state, p.reason
FROM {schema}.pending p JOIN unnest($1::text[], $2::text[]) AS w(topic, key) USING (topic, key)
WHERE p.state = 'waiting'
ORDER BY p.key, p.topic, p.sequence NULLS FIRST, p.number

-- name: pending_numbers
SELECT number FROM {schema}.pending WHERE topic = $1 AND key = $2 AND state <> 'unknown'

-- name: pending_left
SELECT CASE WHEN bool_or(state = 'parked') THEN 'parked' ELSE 'gap' END
FROM {schema}.pending WHERE topic = $1 AND key = $2 AND state <> 'unknown' HAVING count(*) > 0

-- name: pending_empty
DELETE FROM {schema}.pending WHERE number = ANY ($1::bigint[]) AND state <> 'unknown'

-- name: pending_passed
DELETE FROM {schema}.pending WHERE number = ANY ($1::bigint[]) AND state = 'waiting'

-- name: pending_delete
DELETE FROM {schema}.pending WHERE number = ANY ($1::bigint[])

-- name: pending_unknown
SELECT number, topic, key, sequence, event_id, headers, value, state, reason
FROM {schema}.pending WHERE state = 'unknown' ORDER BY key, topic, sequence LIMIT $1

-- name: gaps
-- A key met for the first time above sequence 1 is asked for at once.
SELECT topic, key, sequence FROM {schema}.inbox
WHERE waiting = 'gap' AND (sequence = 0 OR since <= clock_timestamp() - $1::interval)
ORDER BY since LIMIT 200

-- name: parked
SELECT number, topic, key, sequence, event_id, headers, value, state, reason, detail, arrived
FROM {schema}.pending
WHERE state <> 'unknown' AND number > $1
  AND ($3::text IS NULL OR key = $3)
  AND EXISTS (SELECT 1 FROM {schema}.inbox i
              WHERE i.topic = pending.topic AND i.key = pending.key AND i.waiting = 'parked')
ORDER BY number LIMIT $2

-- name: parked_count
SELECT count(*) FROM {schema}.inbox WHERE waiting = 'parked'

-- name: parked_acts
SELECT number, at, who, act, topic, key, sequence, event_id, outcome, reason FROM {schema}.parked_act
WHERE number < $1 ORDER BY number DESC LIMIT $2

-- name: parked_act
INSERT INTO {schema}.parked_act (who, act, topic, key, sequence, event_id, outcome, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: complete_mark
-- A source says that all it recorded before $4 lies below these offsets. A mark that is not yet reached stays, so that a
-- reader who is always a little behind still moves; a later one for the same offset says more (after a pause many are read at
-- once); an emptied bus begins again with lower offsets. Not waited for: a mark that a crash of the database takes back
-- comes again.
INSERT INTO {schema}.complete (source, topic, partition, next_offset, next_upto)
SELECT $1, topic, partition, next_offset, $4::timestamptz
FROM unnest($2::text[], $3::int[], $5::bigint[]) AS m(topic, partition, next_offset),
     (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
ON CONFLICT (source, topic, partition) DO UPDATE
SET next_offset = excluded.next_offset, next_upto = excluded.next_upto
WHERE complete.next_offset IS NULL OR complete.next_offset >= excluded.next_offset

-- name: complete_reached
-- What this process has read and applied, by partition; not waited for: a mark that is lost comes again.
UPDATE {schema}.complete c
SET upto = greatest(c.upto, c.next_upto), next_offset = NULL, next_upto = NULL
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS r(topic, partition, next_offset),
     (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
WHERE c.topic = r.topic AND c.partition = r.partition AND c.next_offset <= r.next_offset

-- name: complete
-- Null until every partition of the topic has been read up to a first mark.
SELECT source, topic, CASE WHEN count(*) = count(upto) THEN min(upto) END AS upto
FROM {schema}.complete GROUP BY source, topic

-- name: bus_read
SELECT topic, partition, id, next_offset FROM {schema}.bus_read

-- name: bus_read_put
INSERT INTO {schema}.bus_read (topic, partition, id, next_offset)
SELECT r.* FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[]) AS r(topic, partition, id, next_offset),
     (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
ON CONFLICT (topic, partition) DO UPDATE SET id = excluded.id, next_offset = excluded.next_offset

-- name: heads_consumed
-- What the inbox holds of a topic, in buckets of the hour in which the owner recorded each key's newest event.
SELECT date_trunc('hour', recorded) AS hour, count(*) AS keys, sum(sequence) AS events,
       sum(hashtextextended(key, sequence))::text AS digest
FROM {schema}.inbox WHERE topic = $1 AND sequence > 0 AND ($2::timestamptz IS NULL OR recorded >= $2)
GROUP BY 1 ORDER BY 1

-- name: heads_consumed_keys
SELECT key, sequence FROM {schema}.inbox WHERE topic = $1 AND key = ANY ($2::text[])

-- name: heads_consumed_hour
SELECT key, sequence FROM {schema}.inbox
WHERE topic = $1 AND recorded >= $2 AND recorded < $2 + interval '1 hour'

-- name: answer_find
SELECT subject, path, key, digest, status, headers, body FROM {schema}.idempotency
WHERE (subject, path, key) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))

-- name: answer_put
INSERT INTO {schema}.idempotency (subject, path, key, digest, status, headers, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::smallint[], $6::jsonb[], $7::text[])

-- name: answer_forget
DELETE FROM {schema}.idempotency WHERE (subject, path, key) IN (
    SELECT subject, path, key FROM {schema}.idempotency WHERE at < clock_timestamp() - $1::interval ORDER BY at LIMIT $2)

-- name: access_put
INSERT INTO {schema}.access_record (who, role, code, what) VALUES ($1, $2, $3, $4)

-- name: access_of
-- Who read personal data, newest first; $1 a code, or null for all.
SELECT number, at, who, role, code, what FROM {schema}.access_record
WHERE ($1::text IS NULL OR code = $1) AND number < $2 AND ($3::timestamptz IS NULL OR at >= $3)
ORDER BY number DESC LIMIT $4

-- name: access_forget
DELETE FROM {schema}.access_record WHERE number IN (
    SELECT number FROM {schema}.access_record WHERE at < clock_timestamp() - $1::interval ORDER BY at LIMIT $2)

-- name: rewrapped
SELECT true FROM {schema}.rewrapped WHERE key_id = $1

-- name: rewrapped_put
INSERT INTO {schema}.rewrapped (key_id) VALUES ($1) ON CONFLICT (key_id) DO NOTHING

-- name: wrapped_page
SELECT {key}::text AS key, wrapped FROM {schema}.{table}
WHERE wrapped IS NOT NULL AND ($1 = '' OR {key} > $1::text::{type}) ORDER BY {key} LIMIT $2

-- name: wrapped_move
-- What was changed or erased meanwhile stays as it is.
UPDATE {schema}.{table} t SET wrapped = n.new
FROM unnest($1::text[], $2::text[], $3::text[]) AS n(key, old, new)
WHERE t.{key} = n.key::{type} AND t.wrapped = n.old

-- name: heads_owned
-- What this service has published of a topic, in the same buckets; `head` is the service's own view of its keys.
SELECT date_trunc('hour', recorded) AS hour, count(*) AS keys, sum(sequence) AS events,
       sum(hashtextextended(key, sequence))::text AS digest
FROM {schema}.head WHERE topic = $1 AND ($2::timestamptz IS NULL OR recorded >= $2)
GROUP BY 1 ORDER BY 1

-- name: heads_owned_hour
SELECT key, sequence FROM {schema}.head
WHERE topic = $1 AND recorded >= $2 AND recorded < $2 + interval '1 hour'

-- name: heads_owned_keys
SELECT key, sequence FROM {schema}.head WHERE topic = $1 AND key = ANY ($2::text[])

-- name: stored_events
-- What the log holds of a topic, by the hour in which it was recorded, and how much of it is not yet published.
SELECT count(*) AS stored, count(o.position) AS unpublished
FROM {schema}.event e LEFT JOIN {schema}.outbox o USING (position) WHERE e.aggregatetype = $1

-- name: parked_lock
-- One transaction at a time numbers the parked events of a service: there are few of them.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))

-- name: parked_sequences
SELECT aggregateid, max(sequence) AS sequence FROM {schema}.event
WHERE aggregatetype = 'parked' AND aggregateid = ANY ($1::text[]) GROUP BY aggregateid

-- name: parked_row
SELECT number, topic, key, sequence, event_id, headers, value, state, reason, detail, arrived
FROM {schema}.pending WHERE number = $1

-- name: place_sequence
SELECT sequence FROM {schema}.inbox WHERE topic = $1 AND key = $2

-- name: place_skip
UPDATE {schema}.inbox SET sequence = sequence + 1 WHERE topic = $1 AND key = $2 AND sequence = $3
