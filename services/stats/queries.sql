-- All SQL of stats. A question has agencies $1, a start $2, the instant it is judged at $3 and the instant it is known
-- at $4. {seen} are the rectangles that it sees; {table} is that of dossiers, or the view of legs with the same columns;
-- {side} is the agency that is meant; {since} when what has ended must have ended, mostly the start.

-- name: seen
-- What was pending at that instant, and what had ended or been refused since the start. The conditions on lengths are those
-- of the partial indexes, word for word: each branch reads one of them, within a range that does not grow with history.
(SELECT * FROM {schema}.{table}
 WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' <= valid_from AT TIME ZONE 'UTC' + interval '32 days'
   AND {side} = ANY ($1::text[]) AND valid_from <= $3 AND valid_from > $3 - interval '768 hours'
   AND valid_to > $3 AND known_from <= $4
 UNION ALL
 SELECT * FROM {schema}.{table}
 WHERE phase = 'pending' AND known_to = 'infinity' AND valid_to AT TIME ZONE 'UTC' > valid_from AT TIME ZONE 'UTC' + interval '32 days'
   AND {side} = ANY ($1::text[]) AND valid_to > $3 AND valid_from <= $3 AND known_from <= $4
 UNION ALL
 SELECT * FROM {schema}.{table}
 WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' <= known_from AT TIME ZONE 'UTC' + interval '32 days'
   AND {side} = ANY ($1::text[]) AND known_from <= $4 AND known_from > $4 - interval '768 hours'
   AND known_to > $4 AND valid_from <= $3 AND valid_to > $3
 UNION ALL
 SELECT * FROM {schema}.{table}
 WHERE phase = 'pending' AND known_to < 'infinity' AND known_to AT TIME ZONE 'UTC' > known_from AT TIME ZONE 'UTC' + interval '32 days'
   AND {side} = ANY ($1::text[]) AND known_to > $4 AND known_from <= $4 AND valid_from <= $3 AND valid_to > $3
 UNION ALL
 SELECT * FROM {schema}.{table}
 WHERE phase <> 'pending' AND {side} = ANY ($1::text[]) AND ended_at >= {since} AND ended_at <= $3
   AND valid_to > $3 AND valid_from <= $3 AND known_from <= $4 AND known_to > $4) seen

-- name: seen_working
-- The legs of that agency, and the dossiers that it works on itself: no other has a leg of theirs by then.
(SELECT * FROM {legs}
 UNION ALL
 SELECT * FROM {own} WHERE NOT EXISTS (
     SELECT 1 FROM {schema}.leg_fact l
     WHERE l.dossier = seen.code AND l.phase <> 'refused'
       AND l.valid_from <= $3 AND l.valid_to > $3 AND l.known_from <= $4 AND l.known_to > $4)) seen

-- name: dossiers_lock
SELECT code, topic, agency, procedure, field, channel, state, confidential, began, acts
FROM {schema}.dossier WHERE code = ANY ($1::text[]) ORDER BY code FOR UPDATE

-- name: dossiers_put
INSERT INTO {schema}.dossier (code, topic, agency, procedure, field, channel, state, confidential, began, acts)
SELECT code, topic, agency, procedure, field, channel, state, confidential, began, acts::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::boolean[],
            $9::bigint[], $10::text[])
     AS d(code, topic, agency, procedure, field, channel, state, confidential, began, acts)
ON CONFLICT (code) DO UPDATE SET procedure = excluded.procedure, field = excluded.field, channel = excluded.channel,
    state = excluded.state, confidential = excluded.confidential, acts = excluded.acts

-- name: facts_close
-- What was known for no time at all has never been known.
WITH gone AS (
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS g(code, valid_from, at)),
unborn AS (
    DELETE FROM {schema}.fact f USING gone g
    WHERE f.code = g.code AND f.valid_from = g.valid_from AND f.known_to = 'infinity' AND f.known_from = g.at)
UPDATE {schema}.fact f SET known_to = g.at FROM gone g
WHERE f.code = g.code AND f.valid_from = g.valid_from AND f.known_to = 'infinity' AND f.known_from < g.at

-- name: facts_empty
DELETE FROM {schema}.fact WHERE code = ANY ($1::text[])

-- name: facts_put
-- A rectangle that is there already was written by a process that applied the same event: this batch is rolled back.
INSERT INTO {schema}.fact (code, valid_from, valid_to, known_from, known_to, agency, deciding, procedure, field, channel,
    phase, received_at, due_at, paused, pause_late, ended_at, outcome, elapsed, listed, digitised, reused, population,
    electronic, with_fee, paid_online, repeated)
SELECT code, valid_from, coalesce(valid_to, 'infinity'), known_from, coalesce(known_to, 'infinity'), agency, deciding,
    procedure, field, channel, phase, received_at, due_at, paused, pause_late, ended_at, outcome, elapsed,
    f & 1 > 0, f & 2 > 0, f & 4 > 0, f & 8 > 0, f & 16 > 0, f & 32 > 0, f & 64 > 0, f & 128 > 0
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[],
            $14::boolean[], $15::boolean[], $16::timestamptz[], $17::text[], $18::bigint[], $19::int[])
     AS r(code, valid_from, valid_to, known_from, known_to, agency, deciding, procedure, field, channel, phase,
          received_at, due_at, paused, pause_late, ended_at, outcome, elapsed, f)
ON CONFLICT DO NOTHING

-- name: extensions_put
INSERT INTO {schema}.extension (id, code, agency, deciding, procedure, field, happened, recorded)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
                     $8::timestamptz[])
ON CONFLICT DO NOTHING

-- name: ratings_put
INSERT INTO {schema}.rating (id, code, agency, deciding, procedure, field, happened, recorded, content, complained)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
                     $8::timestamptz[], $9::boolean[], $10::boolean[])
ON CONFLICT DO NOTHING

-- name: undo
WITH u AS (SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, at)),
extended AS (UPDATE {schema}.extension e SET undone = u.at FROM u WHERE e.id = u.id)
UPDATE {schema}.rating r SET undone = u.at FROM u WHERE r.id = u.id

-- name: legs_lock
SELECT transfer, dossier, acts FROM {schema}.leg WHERE transfer = ANY ($1::uuid[]) ORDER BY transfer FOR UPDATE

-- name: legs_put
INSERT INTO {schema}.leg (transfer, dossier, acts)
SELECT transfer, dossier, acts::jsonb FROM unnest($1::uuid[], $2::text[], $3::text[]) AS l(transfer, dossier, acts)
ON CONFLICT (transfer) DO UPDATE SET acts = excluded.acts

-- name: leg_facts_empty
DELETE FROM {schema}.leg_fact WHERE transfer = ANY ($1::uuid[])

-- name: leg_facts_put
INSERT INTO {schema}.leg_fact (transfer, dossier, agency, valid_from, valid_to, known_from, known_to, phase, received_at,
    due_at, ended_at, outcome, elapsed)
SELECT transfer, dossier, agency, valid_from, coalesce(valid_to, 'infinity'), known_from, coalesce(known_to, 'infinity'),
    phase, received_at, due_at, ended_at, outcome, elapsed
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
            $7::timestamptz[], $8::text[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[],
            $13::bigint[])
     AS r(transfer, dossier, agency, valid_from, valid_to, known_from, known_to, phase, received_at, due_at, ended_at,
          outcome, elapsed)
ON CONFLICT DO NOTHING

-- name: petitions_put
INSERT INTO {schema}.petition_act (petition, sequence, type, agency, happened, recorded, due_at, content)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                     $7::timestamptz[], $8::boolean[])
ON CONFLICT DO NOTHING

-- name: documents_put
INSERT INTO {schema}.document_act (document, sequence, type, state, from_agency, to_agency, happened, recorded)
SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
                     $8::timestamptz[])
ON CONFLICT DO NOTHING

-- name: moved_put
-- Each batch gives a new mark: a snapshot takes away only the mark that it has seen, never one that came meanwhile.
INSERT INTO {schema}.moved (agency, mark)
SELECT agency, nextval('{schema}.mark') FROM unnest($1::text[]) AS m(agency) ORDER BY agency
ON CONFLICT (agency) DO UPDATE SET mark = excluded.mark

-- name: asked_before
-- The periods that were judged at or after the first act that changed, and asked before the last was recorded.
SELECT agency, subtree, from_day, to_day, judged, at FROM {schema}.asked
WHERE agency = ANY ($1::text[]) AND judged >= $2 AND at < $3

-- name: asked_put
INSERT INTO {schema}.asked (agency, subtree, from_day, to_day, judged, at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
ON CONFLICT (agency, from_day, to_day, subtree) DO UPDATE SET judged = greatest(asked.judged, excluded.judged),
    at = CASE WHEN excluded.judged > asked.judged THEN excluded.at ELSE asked.at END

-- name: restatements_put
INSERT INTO {schema}.restatement (dossier, agency, from_day, to_day, changes, event, type, happened, known, published)
SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::date[], $5::jsonb[], $6::uuid[], $7::text[],
                     $8::timestamptz[], $9::timestamptz[], $10::boolean[])

-- name: restatements
-- With the numbers of the reports that were published before the change was known and count this dossier.
SELECT s.number, s.dossier, s.agency, s.from_day, s.to_day, s.changes, s.event, s.type, s.happened, s.known,
       ARRAY(SELECT r.number FROM {schema}.published_report r
             WHERE r.from_day = s.from_day AND r.to_day = s.to_day AND s.agency = ANY (r.agencies) AND r.known < s.known
             ORDER BY r.number) AS reports
FROM {schema}.restatement s WHERE s.agency = ANY ($1::text[]) AND s.number > $2 ORDER BY s.number LIMIT $3

-- name: report_lock
-- Editions of one report are numbered one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('lienthong-stats-report ' || $1, 0))

-- name: report_editions
SELECT count(*) FROM {schema}.published_report WHERE regexp_replace(number, '-[0-9]+$', '') = $1

-- name: report_put
INSERT INTO {schema}.published_report (number, report, agency, agencies, by, rows, from_day, to_day, judged, known,
    published, publisher, figures)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), $11, $12)

-- name: report_get
SELECT * FROM {schema}.published_report WHERE number = $1

-- name: reports
SELECT number, report, agency, agencies, by, rows, from_day, to_day, judged, known, published, publisher,
       (SELECT count(*) FROM {schema}.restatement s
        WHERE s.from_day = r.from_day AND s.to_day = r.to_day AND s.agency = ANY (r.agencies) AND s.known > r.known)
       AS restated
FROM {schema}.published_report r WHERE agency = ANY ($1::text[]) AND number > $2 ORDER BY number LIMIT $3

-- name: report_restated
SELECT dossier, agency, changes, event, type, happened, known FROM {schema}.restatement
WHERE from_day = $1 AND to_day = $2 AND agency = ANY ($3::text[]) AND known > $4 ORDER BY number LIMIT 1000

-- name: reports_scheduled
SELECT number FROM {schema}.published_report WHERE number = ANY ($1::text[])

-- name: began
-- When the first dossier was heard of, microseconds since 1970: periods that ended before were not kept here.
SELECT began FROM {schema}.dossier ORDER BY began LIMIT 1

-- name: counts
-- Every count of the Indicators JSON that comes from rectangles.
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'online') AS online,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'counter') AS counter,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'postal') AS postal,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at < $2) AS carried_over,
    count(*) FILTER (WHERE outcome = 'early') AS early,
    count(*) FILTER (WHERE outcome = 'on_time') AS on_time,
    count(*) FILTER (WHERE outcome = 'late') AS late,
    count(*) FILTER (WHERE phase = 'pending') AS pending,
    count(*) FILTER (WHERE phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3))) AS overdue,
    count(*) FILTER (WHERE phase = 'pending' AND paused) AS paused,
    count(*) FILTER (WHERE phase = 'refused') AS refused,
    count(*) FILTER (WHERE received_at >= $2 AND listed) AS listed,
    count(*) FILTER (WHERE received_at >= $2 AND listed AND digitised) AS digitised,
    sum(elapsed) AS elapsed

-- name: figures
-- One row; $5 procedure, $6 field, $7 channel, null for all.
SELECT {counts},
    percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY elapsed) AS spread
FROM {seen}
WHERE ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR channel = $7)

-- name: figures_new
-- The same without what had ended before $8; `times`: how long each took, in order, eight bytes each.
SELECT {counts}, string_agg(int8send(elapsed), '' ORDER BY elapsed) AS times
FROM {seen}
WHERE ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR channel = $7)

-- name: figures_settled
-- The same of what ended from $8 to before $9, by month, as it stands now: the clock of who asks may be a little behind that of
-- who recorded it, and what is kept is not asked for again.
SELECT date_trunc('month', ended_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date AS month, {counts},
    string_agg(int8send(elapsed), '' ORDER BY elapsed) AS times
FROM {schema}.{table}
WHERE phase <> 'pending' AND {side} = ANY ($1::text[]) AND ended_at >= $8 AND ended_at < $9
  AND valid_to = 'infinity' AND known_to = 'infinity' AND $3::timestamptz IS NOT NULL AND $4::timestamptz IS NOT NULL
  AND ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR channel = $7)
GROUP BY 1

-- name: settled_versions
SELECT month, sum(version)::bigint AS version FROM {schema}.settled
WHERE agency = ANY ($1::text[]) AND month >= $2 AND month < $3 GROUP BY month

-- name: settled_put
INSERT INTO {schema}.settled (agency, month, version)
SELECT agency, month, 1 FROM unnest($1::text[], $2::date[]) AS s(agency, month) ORDER BY agency, month
ON CONFLICT (agency, month) DO UPDATE SET version = settled.version + 1

-- name: figures_by
-- The same counts for each agency, field or procedure ($8).
SELECT CASE $8::text WHEN 'agency' THEN {side} WHEN 'procedure' THEN procedure ELSE field END AS part,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'online') AS online,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'counter') AS counter,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at >= $2 AND channel = 'postal') AS postal,
    count(*) FILTER (WHERE phase <> 'refused' AND received_at < $2) AS carried_over,
    count(*) FILTER (WHERE phase <> 'refused') AS received,
    count(*) FILTER (WHERE outcome = 'early') AS early,
    count(*) FILTER (WHERE outcome = 'on_time') AS on_time,
    count(*) FILTER (WHERE outcome = 'late') AS late,
    count(*) FILTER (WHERE phase = 'ended') AS resolved,
    count(*) FILTER (WHERE phase = 'pending') AS pending,
    count(*) FILTER (WHERE phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3))) AS overdue,
    count(*) FILTER (WHERE phase = 'refused') AS refused,
    count(*) FILTER (WHERE phase <> 'refused' AND NOT repeated AND outcome IS DISTINCT FROM 'late'
                           AND NOT (phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3)))) AS in_time
FROM {seen}
WHERE ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR channel = $7)
GROUP BY 1 ORDER BY 1

-- name: figures_index
-- What the index of Decision 766 counts: received, refused or ended in the period, or open at its start.
SELECT
    count(*) AS counted,
    count(*) FILTER (WHERE phase = 'refused' OR (NOT repeated AND outcome IS DISTINCT FROM 'late'
                           AND NOT (phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3))))) AS in_time,
    count(elapsed) AS ended,
    sum(elapsed) AS elapsed,
    count(*) FILTER (WHERE electronic) AS electronic,
    count(*) FILTER (WHERE digitised) AS digitised,
    count(*) FILTER (WHERE reused) AS reused,
    count(*) FILTER (WHERE population) AS population,
    count(*) FILTER (WHERE with_fee) AS with_fee,
    count(*) FILTER (WHERE with_fee AND paid_online) AS paid_online,
    count(DISTINCT procedure) FILTER (WHERE with_fee) AS procedures_with_fee,
    count(DISTINCT procedure) FILTER (WHERE with_fee AND paid_online) AS procedures_paid_online
FROM {seen}

-- name: behind_index
-- The dossiers that a metric of the index ($5) counts and that are not in its numerator, from after a code ($6) on.
SELECT code, agency, procedure, received_at, due_at, ended_at, outcome FROM {seen}
WHERE CASE $5::text
      WHEN 'progress' THEN phase <> 'refused' AND (repeated OR coalesce(outcome = 'late', false)
           OR (phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3))))
      WHEN 'digitisation.ORIGINAL_RESULT_AVAILABLE' THEN NOT electronic
      WHEN 'digitisation.SO_HOA_GIAY_TO_GIAI_QUYET' THEN NOT digitised
      WHEN 'digitisation.REUSED_DIGITIZED_DATA' THEN NOT reused
      WHEN 'digitisation.CITIZEN_DATA_CONNECTED_DOSSIER' THEN NOT population
      ELSE false END
  AND code > $6 ORDER BY code LIMIT $7

-- name: entered_put
INSERT INTO {schema}.entered (agency, metric, from_day, to_day, numerator, denominator, who)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: entered
-- What stands of each agency and metric for just this period, as known at $4.
SELECT DISTINCT ON (agency, metric) agency, metric, numerator, denominator, who, at FROM {schema}.entered
WHERE agency = ANY ($1::text[]) AND from_day = $2 AND to_day = $3 AND at <= $4
ORDER BY agency, metric, number DESC

-- name: extended
-- A dossier's channel is that of its receipt: it is known of the dossier itself.
SELECT count(DISTINCT code) FROM {schema}.extension
WHERE {side} = ANY ($1::text[]) AND happened >= $2 AND happened <= $3 AND recorded <= $4 AND undone > $4
  AND ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR EXISTS (
      SELECT 1 FROM {schema}.dossier d WHERE d.code = extension.code AND d.channel = $7))

-- name: rated
-- Of the dossiers rated in the period, those whose last rating in it is satisfied or better.
SELECT count(*) AS rated, count(*) FILTER (WHERE content) AS content, count(*) FILTER (WHERE complained) AS complained
FROM (SELECT DISTINCT ON (code) content, bool_or(complained) OVER (PARTITION BY code) AS complained
      FROM {schema}.rating
      WHERE {side} = ANY ($1::text[]) AND happened >= $2 AND happened <= $3 AND recorded <= $4 AND undone > $4
        AND ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
        AND ($7::text IS NULL OR EXISTS (
            SELECT 1 FROM {schema}.dossier d WHERE d.code = rating.code AND d.channel = $7))
      ORDER BY code, happened DESC, recorded DESC, id DESC) last

-- name: documents
-- A document that went between two of these agencies was sent by one and received by the other, and handled for both.
SELECT (SELECT count(DISTINCT document) FROM {schema}.document_act
        WHERE type = 'document.arrived' AND to_agency = ANY ($1::text[])
          AND happened >= $2 AND happened <= $3 AND recorded <= $4) AS received,
       (SELECT count(DISTINCT document) FROM {schema}.document_act
        WHERE type = 'document.sent' AND from_agency = ANY ($1::text[])
          AND happened >= $2 AND happened <= $3 AND recorded <= $4) AS sent,
       (SELECT count(*) FROM (
            SELECT DISTINCT document, type FROM {schema}.document_act
            WHERE ((type = 'document.arrived' AND to_agency = ANY ($1::text[]))
                OR (type = 'document.sent' AND from_agency = ANY ($1::text[])))
              AND happened >= $2 AND happened <= $3 AND recorded <= $4) d
        WHERE '06' = (SELECT state FROM {schema}.document_act s
                      WHERE s.document = d.document AND s.happened <= $3 AND s.recorded <= $4
                      ORDER BY s.sequence DESC LIMIT 1)) AS handled

-- name: petitions
-- Petitions filed in the period or unanswered at its start, at the agency that answers them as it stood at its end.
WITH seen AS (
    SELECT petition, sequence, type, agency, happened, due_at, content FROM {schema}.petition_act
    WHERE happened <= $3 AND recorded <= $4
      AND petition IN (SELECT petition FROM {schema}.petition_act WHERE agency = ANY ($1::text[]))),
standing AS (
    SELECT petition, (array_agg(agency ORDER BY sequence DESC))[1] AS agency, max(due_at) AS due_at,
           min(happened) FILTER (WHERE type = 'petition.filed') AS filed,
           min(happened) FILTER (WHERE type = 'petition.answered') AS answered,
           (array_agg(content ORDER BY sequence DESC) FILTER (WHERE type = 'petition.rated'))[1] AS content
    FROM seen GROUP BY petition)
SELECT count(*) AS counted, count(*) FILTER (WHERE coalesce(answered, $3) <= due_at) AS on_time,
       count(*) FILTER (WHERE content) AS content
FROM standing WHERE agency = ANY ($1::text[]) AND filed IS NOT NULL AND (filed >= $2 OR coalesce(answered, $3) >= $2)

-- name: behind
-- The dossiers behind a number: $8 is the path of its cell, $9 the last code of the page before. The legs of one dossier
-- stay on one page.
SELECT code, agency, procedure, received_at, due_at, ended_at, outcome FROM {seen}
WHERE ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR channel = $7)
  AND CASE $8::text
      WHEN 'received.total' THEN phase <> 'refused'
      WHEN 'received.online' THEN phase <> 'refused' AND received_at >= $2 AND channel = 'online'
      WHEN 'received.counter' THEN phase <> 'refused' AND received_at >= $2 AND channel = 'counter'
      WHEN 'received.postal' THEN phase <> 'refused' AND received_at >= $2 AND channel = 'postal'
      WHEN 'received.counter_postal' THEN phase <> 'refused' AND received_at >= $2 AND channel <> 'online'
      WHEN 'received.carried_over' THEN phase <> 'refused' AND received_at < $2
      WHEN 'resolved.total' THEN phase = 'ended'
      WHEN 'resolved.early' THEN phase = 'ended' AND outcome = 'early'
      WHEN 'resolved.on_time' THEN phase = 'ended' AND outcome = 'on_time'
      WHEN 'resolved.late' THEN phase = 'ended' AND outcome = 'late'
      WHEN 'pending.total' THEN phase = 'pending'
      WHEN 'pending.within' THEN phase = 'pending' AND NOT (pause_late OR (NOT paused AND due_at < $3))
      WHEN 'pending.overdue' THEN phase = 'pending' AND (pause_late OR (NOT paused AND due_at < $3))
      WHEN 'pending.paused' THEN phase = 'pending' AND paused
      WHEN 'refused' THEN phase = 'refused'
      WHEN 'digitised.denominator' THEN received_at >= $2 AND listed
      WHEN 'digitised.numerator' THEN received_at >= $2 AND listed AND digitised
      WHEN 'online_share.denominator' THEN phase <> 'refused' AND received_at >= $2
      WHEN 'online_share.numerator' THEN phase <> 'refused' AND received_at >= $2 AND channel = 'online'
      WHEN 'on_time_share.denominator' THEN phase = 'ended'
      WHEN 'on_time_share.numerator' THEN phase = 'ended' AND outcome <> 'late'
      ELSE false END
  AND code > $9
ORDER BY code FETCH FIRST ($10) ROWS WITH TIES

-- name: behind_extended
SELECT DISTINCT code FROM {schema}.extension
WHERE {side} = ANY ($1::text[]) AND happened >= $2 AND happened <= $3 AND recorded <= $4 AND undone > $4
  AND ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6)
  AND ($7::text IS NULL OR EXISTS (
      SELECT 1 FROM {schema}.dossier d WHERE d.code = extension.code AND d.channel = $7))
  AND code > $8
ORDER BY code LIMIT $9

-- name: behind_rated
SELECT code FROM (
    SELECT DISTINCT ON (code) code, content FROM {schema}.rating
    WHERE {side} = ANY ($1::text[]) AND happened >= $2 AND happened <= $3 AND recorded <= $4 AND undone > $4
      AND ($5::text IS NULL OR procedure = $5) AND ($6::text IS NULL OR field = $6) AND code > $8
      AND ($7::text IS NULL OR EXISTS (
          SELECT 1 FROM {schema}.dossier d WHERE d.code = rating.code AND d.channel = $7))
    ORDER BY code, happened DESC, recorded DESC, id DESC) last
WHERE content OR NOT $10::boolean ORDER BY code LIMIT $9

-- name: behind_documents
SELECT DISTINCT document AS code FROM {schema}.document_act d
WHERE ((type = 'document.arrived' AND to_agency = ANY ($1::text[]) AND $5::text <> 'documents.sent')
    OR (type = 'document.sent' AND from_agency = ANY ($1::text[]) AND $5::text <> 'documents.received'))
  AND happened >= $2 AND happened <= $3 AND recorded <= $4 AND document > $6
  AND ($5::text <> 'documents.handled' OR '06' = (
       SELECT state FROM {schema}.document_act s
       WHERE s.document = d.document AND s.happened <= $3 AND s.recorded <= $4 ORDER BY s.sequence DESC LIMIT 1))
ORDER BY code LIMIT $7

-- name: trend
-- Received and resolved on each local day since $2, as known now.
SELECT day, sum(received)::int AS received, sum(resolved)::int AS resolved FROM (
    SELECT (received_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date AS day, 1 AS received, 0 AS resolved
    FROM {schema}.fact WHERE agency = ANY ($1::text[]) AND received_at >= $2 AND phase <> 'refused'
                         AND valid_to = 'infinity' AND known_to = 'infinity'
    UNION ALL
    SELECT (ended_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date, 0, 1
    FROM {schema}.fact WHERE agency = ANY ($1::text[]) AND ended_at >= $2 AND phase = 'ended'
                         AND valid_to = 'infinity' AND known_to = 'infinity') acts
GROUP BY day ORDER BY day

-- name: overdue_now
-- What is overdue at $2, by the agency that has it (the one with an open leg, else its own) and the one that received it.
SELECT coalesce(l.agency, f.agency) AS holder, f.agency, count(*) AS overdue, min(f.due_at) AS oldest
FROM {schema}.fact f LEFT JOIN LATERAL (
    SELECT agency FROM {schema}.leg_fact l
    WHERE l.dossier = f.code AND l.phase = 'pending' AND l.valid_to = 'infinity' AND l.known_to = 'infinity'
    ORDER BY l.received_at DESC, l.transfer LIMIT 1) l ON true
WHERE f.phase = 'pending' AND f.agency = ANY ($1::text[]) AND f.valid_to = 'infinity' AND f.known_to = 'infinity'
  AND (f.pause_late OR (NOT f.paused AND f.due_at < $2))
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 25

-- name: durations
-- How long what ended since $2 took, in seconds, pauses counted.
SELECT agency, procedure, extract(epoch FROM ended_at - received_at)::float8 AS seconds FROM {schema}.fact
WHERE phase = 'ended' AND agency = ANY ($1::text[]) AND ended_at >= $2 AND ended_at <= $3
  AND valid_to = 'infinity' AND known_to = 'infinity' AND phase <> 'pending'
ORDER BY ended_at DESC LIMIT 200000

-- name: open_until
-- What is pending, not paused, and due from $2 to before $3.
SELECT code, agency, procedure, received_at, due_at FROM {schema}.fact
WHERE phase = 'pending' AND agency = ANY ($1::text[]) AND valid_to = 'infinity' AND known_to = 'infinity'
  AND NOT paused AND due_at >= $2 AND due_at < $3
ORDER BY due_at, code

-- name: site_now
SELECT count(*) AS pending, count(*) FILTER (WHERE pause_late OR (NOT paused AND due_at < now())) AS overdue,
       count(*) FILTER (WHERE NOT paused AND due_at >= now() AND due_at < now() + interval '24 hours') AS due,
       coalesce((SELECT max(number) FROM {schema}.restatement), 0) AS restatements
FROM {schema}.fact WHERE phase = 'pending' AND agency = ANY ($1::text[]) AND valid_to = 'infinity' AND known_to = 'infinity'

-- name: words
-- When what each lower site said last was recorded there.
SELECT site, recorded FROM {schema}.site_word ORDER BY site

-- name: words_put
INSERT INTO {schema}.site_word (site, recorded)
SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS w(site, recorded) ORDER BY site
ON CONFLICT (site) DO UPDATE SET recorded = greatest(site_word.recorded, excluded.recorded)

-- name: snapshot_lock
SELECT pg_try_advisory_xact_lock(hashtextextended('lienthong-stats-snapshot', 0))

-- name: moved
SELECT agency, mark FROM {schema}.moved ORDER BY mark LIMIT $1

-- name: moved_clear
DELETE FROM {schema}.moved m USING unnest($1::text[], $2::bigint[]) AS d(agency, mark)
WHERE m.agency = d.agency AND m.mark = d.mark

-- name: snapshots
SELECT agency, grain, period, sequence, recorded, figures FROM {schema}.snapshot
WHERE (agency, grain, period) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))

-- name: snapshots_put
INSERT INTO {schema}.snapshot (agency, grain, period, sequence, recorded, figures)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::timestamptz[], $6::jsonb[])
ON CONFLICT (agency, grain, period) DO UPDATE SET sequence = excluded.sequence, recorded = excluded.recorded,
    figures = excluded.figures

-- name: restated_take
UPDATE {schema}.restatement r SET published = true
FROM (SELECT DISTINCT agency, from_day FROM {schema}.restatement WHERE NOT published ORDER BY 1, 2 LIMIT $1) m
WHERE r.agency = m.agency AND r.from_day = m.from_day AND NOT r.published
RETURNING r.agency, r.from_day, r.to_day, r.dossier, r.event

-- name: confidential
SELECT code FROM {schema}.dossier WHERE code = ANY ($1::text[]) AND confidential

-- name: rebuild_table
CREATE TEMP TABLE rebuilt_{table} (LIKE {schema}.{table}) ON COMMIT DELETE ROWS

-- name: rebuild_staged
CREATE TEMP TABLE staged_{table} (LIKE {schema}.{table})

-- name: rebuild_staged_key
-- What the switch replaces: the rows of these keys, table by table.
CREATE TEMP TABLE staged_key (held text NOT NULL, key text NOT NULL, PRIMARY KEY (held, key))

-- name: rebuild_staged_place
-- The places at which they were folded, null where there was none; `head` and `recorded` are for a place that was lost.
CREATE TEMP TABLE staged_place (
    topic text NOT NULL, key text NOT NULL, sequence integer, head integer, recorded timestamptz, PRIMARY KEY (key, topic))

-- name: rebuild_told
-- What the topics hold; `data` is JSON.
CREATE TEMP TABLE told (
    family text NOT NULL, key text NOT NULL, sequence integer NOT NULL, id text NOT NULL, type text NOT NULL,
    happened bigint NOT NULL, recorded bigint NOT NULL, mode text NOT NULL, data text NOT NULL,
    PRIMARY KEY (key, sequence, family))

-- name: rebuild_tell
INSERT INTO told
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
                     $9::text[])
ON CONFLICT DO NOTHING

-- name: rebuild_told_page
-- As a page of the log.
SELECT '[' || coalesce(string_agg(line, ',' ORDER BY key, sequence, family), '') || ']'
FROM (SELECT key, sequence, family,
             '["' || family || '",' || to_json(key)::text || ',' || sequence || ',' || to_json(id)::text || ','
             || to_json(type)::text || ',' || happened || ',' || recorded || ',' || to_json(mode)::text || ',' || data || ']' AS line
      FROM told
      WHERE family = ANY ($1::text[]) AND (key, sequence, family) > ($2, $3::int, $4)
      ORDER BY key, sequence, family
      LIMIT $5) page

-- name: rebuild_places
SELECT topic, key, sequence FROM {schema}.inbox JOIN unnest($1::text[], $2::text[]) AS w(topic, key) USING (topic, key)

-- name: rebuild_put_dossier
INSERT INTO rebuilt_dossier
SELECT code, topic, agency, procedure, field, channel, state, confidential, began, acts::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::boolean[],
            $9::bigint[], $10::text[])
     AS d(code, topic, agency, procedure, field, channel, state, confidential, began, acts)

-- name: rebuild_put_leg
INSERT INTO rebuilt_leg SELECT transfer, dossier, acts::jsonb FROM unnest($1::uuid[], $2::text[], $3::text[]) AS l(transfer, dossier, acts)

-- name: rebuild_live
SELECT * FROM {schema}.{table} WHERE {key} = ANY ($1::text[])

-- name: rebuild_compare
-- The keys whose rows differ, one way or the other.
SELECT DISTINCT key FROM (
    (SELECT {key}::text AS key, l.* FROM {schema}.{table} l WHERE {key} = ANY ($1)
     EXCEPT ALL SELECT {key}::text, r.* FROM rebuilt_{table} r)
    UNION ALL
    (SELECT {key}::text, r.* FROM rebuilt_{table} r
     EXCEPT ALL SELECT {key}::text, l.* FROM {schema}.{table} l WHERE {key} = ANY ($1))) d

-- name: rebuild_name
-- How the rows of these keys differ: none live, none but live ones, or in which columns.
WITH line AS (
    SELECT {key}::text AS key, true AS live, to_jsonb(l) AS held FROM {schema}.{table} l WHERE {key} = ANY ($1)
    UNION ALL SELECT {key}::text, false, to_jsonb(r) FROM rebuilt_{table} r WHERE {key} = ANY ($1)),
cell AS (
    SELECT line.key, c.key AS name FROM line, jsonb_each_text(held) c GROUP BY line.key, c.key, c.value
    HAVING count(*) FILTER (WHERE live) <> count(*) FILTER (WHERE NOT live))
SELECT key, CASE WHEN NOT bool_or(live) THEN 'missing' WHEN bool_and(live) THEN 'extra' ELSE 'different' END AS "is",
       array(SELECT DISTINCT name FROM cell WHERE cell.key = line.key ORDER BY name) AS columns
FROM line GROUP BY key ORDER BY key

-- name: rebuild_foreign
-- Dossiers that we hold and their owner has never said anything of, between two of the owner's keys.
SELECT code FROM {schema}.dossier WHERE topic = $1 AND code > $2 AND ($3::text IS NULL OR code <= $3)
EXCEPT SELECT unnest($4::text[])

-- name: rebuild_stage_keys
INSERT INTO staged_key SELECT $1, key FROM unnest($2::text[]) AS k(key) ON CONFLICT DO NOTHING

-- name: rebuild_unstage
DELETE FROM staged_{table} WHERE {key} = ANY ($1)

-- name: rebuild_stage
INSERT INTO staged_{table} SELECT * FROM rebuilt_{table} WHERE {key} = ANY ($1)

-- name: rebuild_clear
DELETE FROM rebuilt_{table}

-- name: rebuild_note_places
INSERT INTO staged_place SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::timestamptz[])
ON CONFLICT (key, topic) DO UPDATE SET sequence = excluded.sequence, head = excluded.head, recorded = excluded.recorded

-- name: rebuild_moved
-- Keys whose events went on since they were folded.
SELECT topic, key FROM staged_place s JOIN {schema}.inbox i USING (topic, key)
WHERE i.sequence IS DISTINCT FROM s.sequence

-- name: rebuild_lock
-- In the order in which the consumer locks them: neither waits for the other for good.
SELECT count(*) FROM (
    SELECT FROM {schema}.inbox i JOIN staged_place s USING (topic, key) ORDER BY i.key, i.topic FOR UPDATE OF i) l

-- name: rebuild_agencies
-- Whose figures the switch moves.
SELECT agency FROM {schema}.dossier
WHERE code IN (SELECT key FROM staged_key WHERE held IN ('dossier', 'fact', 'extension', 'rating'))
UNION SELECT agency FROM staged_dossier
UNION SELECT agency FROM {schema}.leg_fact WHERE dossier IN (SELECT key FROM staged_key WHERE held = 'leg_fact')
UNION SELECT agency FROM staged_leg_fact
UNION SELECT unnest(ARRAY[from_agency, to_agency]) FROM {schema}.document_act
      WHERE document IN (SELECT key FROM staged_key WHERE held = 'document_act')
UNION SELECT unnest(ARRAY[from_agency, to_agency]) FROM staged_document_act

-- name: rebuild_settled
-- In which months something had ended that the switch changes, and for whom.
SELECT DISTINCT side AS agency, date_trunc('month', ended_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date AS month
FROM (SELECT agency, deciding, ended_at FROM {schema}.fact
      WHERE code IN (SELECT key FROM staged_key WHERE held = 'fact')
      UNION ALL SELECT agency, deciding, ended_at FROM staged_fact) f
CROSS JOIN LATERAL unnest(ARRAY[agency, deciding]) AS s (side)
WHERE ended_at IS NOT NULL

-- name: rebuild_remove
DELETE FROM {schema}.{table} WHERE {key} IN (SELECT key FROM staged_key WHERE held = '{table}')

-- name: rebuild_insert
INSERT INTO {schema}.{table} SELECT * FROM staged_{table}

-- name: rebuild_adopted
-- Places that were lost, and are still.
SELECT topic, key, head, recorded FROM staged_place s
WHERE head IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.inbox i WHERE i.topic = s.topic AND i.key = s.key)
ORDER BY key, topic
