-- All SQL of routing. {schema} is its own.

-- name: dossiers_lock
SELECT d.code, d.state, d.agency, d.deciding_agency, d.procedure, d.confidential, d.due_at, d.routed, d.last_event,
       d.transfer_sequence, d.transfer_recorded, d.public_sequence, d.public_recorded
FROM {schema}.dossier d JOIN unnest($1::text[]) AS w(code) USING (code)
ORDER BY d.code
FOR UPDATE OF d

-- name: dossiers_write
INSERT INTO {schema}.dossier (code, state, agency, deciding_agency, procedure, confidential, due_at, routed, last_event,
                              transfer_sequence, transfer_recorded, public_sequence, public_recorded)
SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[],
                     $8::boolean[], $9::uuid[], $10::int[], $11::timestamptz[], $12::int[], $13::timestamptz[])
ON CONFLICT (code) DO UPDATE SET state = excluded.state, agency = excluded.agency,
    deciding_agency = excluded.deciding_agency, procedure = excluded.procedure, confidential = excluded.confidential,
    due_at = excluded.due_at, routed = excluded.routed, last_event = excluded.last_event,
    transfer_sequence = excluded.transfer_sequence, transfer_recorded = excluded.transfer_recorded,
    public_sequence = excluded.public_sequence, public_recorded = excluded.public_recorded

-- name: routes
SELECT dossier, steps::text AS steps, started, entered FROM {schema}.route WHERE dossier = ANY ($1::text[])

-- name: routes_write
INSERT INTO {schema}.route (dossier, steps, started, entered)
SELECT dossier, steps::jsonb, started, entered
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[]) AS w(dossier, steps, started, entered)
ON CONFLICT (dossier) DO UPDATE SET steps = excluded.steps, started = excluded.started, entered = excluded.entered

-- name: transfers_of_walks
SELECT * FROM {schema}.transfer WHERE dossier = ANY ($1::text[]) ORDER BY dossier, id

-- name: transfers_write
INSERT INTO {schema}.transfer (id, dossier, leg, step, sender, receiver, state, attempt, due_at, asked_at, changed_at,
                               version, reason, need, result, note, documents, redirected_from, no_target, undone,
                               replaces, replaced_by)
SELECT id, dossier, leg, step, sender, receiver, state, attempt, due_at, asked_at, changed_at, version, reason, need,
       result, note, documents::jsonb, redirected_from, no_target, undone, replaces, replaced_by
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::text[], $8::int[],
            $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::int[], $13::text[], $14::text[], $15::text[],
            $16::text[], $17::text[], $18::text[], $19::boolean[], $20::boolean[], $21::uuid[], $22::uuid[])
     AS w(id, dossier, leg, step, sender, receiver, state, attempt, due_at, asked_at, changed_at, version, reason, need,
          result, note, documents, redirected_from, no_target, undone, replaces, replaced_by)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, changed_at = excluded.changed_at, version = excluded.version,
    reason = excluded.reason, need = excluded.need, result = excluded.result, note = excluded.note,
    documents = excluded.documents, undone = excluded.undone, replaced_by = excluded.replaced_by

-- name: transfer
SELECT t.*, d.state AS dossier_state
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.id = $1

-- name: transfers_of_dossier
-- $2: after this id; $3: these states; $4: one agency, or any; $5: the asker's agencies, or all.
SELECT t.*, d.state AS dossier_state
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.dossier = $1 AND t.id > $2 AND t.state = ANY ($3::text[])
  AND ($4::text IS NULL OR t.sender = $4 OR t.receiver = $4)
  AND ($5::text[] IS NULL OR t.sender = ANY ($5) OR t.receiver = ANY ($5))
ORDER BY t.id LIMIT $6

-- name: transfers_of_agencies
-- The first page of each agency and state from the index, then of all of them together. $1: the agencies; $2: after
-- this id; $3: these states; $4: the asker's agencies, or all.
WITH found AS (
    SELECT near.id
    FROM unnest($1::text[]) AS a(agency) CROSS JOIN unnest($3::text[]) AS s(state)
    CROSS JOIN LATERAL (
        (SELECT id FROM {schema}.transfer
         WHERE receiver = a.agency AND state = s.state AND id > $2
           AND ($4::text[] IS NULL OR sender = ANY ($4) OR receiver = ANY ($4))
         ORDER BY id LIMIT $5)
        UNION ALL
        (SELECT id FROM {schema}.transfer
         WHERE sender = a.agency AND state = s.state AND id > $2
           AND ($4::text[] IS NULL OR sender = ANY ($4) OR receiver = ANY ($4))
         ORDER BY id LIMIT $5)) near
    GROUP BY near.id ORDER BY near.id LIMIT $5)
SELECT t.*, d.state AS dossier_state
FROM found JOIN {schema}.transfer t USING (id) JOIN {schema}.dossier d ON d.code = t.dossier
ORDER BY t.id

-- name: transfers_of_site
SELECT t.*, d.state AS dossier_state
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.id > $1 AND t.state = ANY ($2::text[])
ORDER BY t.id LIMIT $3

-- name: transfers_at
-- Open transfers that lie with these agencies.
SELECT id, dossier FROM {schema}.transfer
WHERE receiver = ANY ($1::text[]) AND state IN ('requested', 'sent', 'delivered', 'accepted')
ORDER BY dossier, id LIMIT $2

-- name: document_lock
SELECT * FROM {schema}.document WHERE id = $1 FOR UPDATE

-- name: document
SELECT * FROM {schema}.document WHERE id = $1

-- name: document_add
-- Nothing is returned when a document of this id exists.
INSERT INTO {schema}.document (id, number, date, kind, sender, receiver, title, state, sent_at, changed_at, dossier,
                               replaces, ref, digest, version, recorded)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO NOTHING
RETURNING arrival

-- name: document_move
UPDATE {schema}.document
SET state = $2, before = $3, changed_at = $4, assignee = $5, reason = $6, version = $7, recorded = $8
WHERE id = $1

-- name: documents_of_dossier
-- $2: after this arrival; $3: one state, or any; $4: one agency, or any; $5: the asker's agencies, or all.
SELECT * FROM {schema}.document
WHERE dossier = $1 AND arrival > $2 AND ($3::text IS NULL OR state = $3)
  AND ($4::text IS NULL OR sender = $4 OR receiver = $4)
  AND ($5::text[] IS NULL OR sender = ANY ($5) OR receiver = ANY ($5))
ORDER BY arrival LIMIT $6

-- name: documents_of_agencies
-- As the transfers of agencies. $1: the agencies; $2: after this arrival; $3: one state, or any; $4: the asker's.
WITH found AS (
    SELECT near.arrival
    FROM unnest($1::text[]) AS a(agency)
    CROSS JOIN LATERAL (
        (SELECT arrival FROM {schema}.document
         WHERE receiver = a.agency AND arrival > $2 AND ($3::text IS NULL OR state = $3)
           AND ($4::text[] IS NULL OR sender = ANY ($4) OR receiver = ANY ($4))
         ORDER BY arrival LIMIT $5)
        UNION ALL
        (SELECT arrival FROM {schema}.document
         WHERE sender = a.agency AND arrival > $2 AND ($3::text IS NULL OR state = $3)
           AND ($4::text[] IS NULL OR sender = ANY ($4) OR receiver = ANY ($4))
         ORDER BY arrival LIMIT $5)) near
    GROUP BY near.arrival ORDER BY near.arrival LIMIT $5)
SELECT d.* FROM found JOIN {schema}.document d USING (arrival) ORDER BY d.arrival

-- name: documents_of_site
SELECT * FROM {schema}.document
WHERE arrival > $1 AND ($2::text IS NULL OR state = $2)
ORDER BY arrival LIMIT $3

-- name: subscribers
SELECT code, tier, topics, view, added, added_by FROM {schema}.subscriber ORDER BY code

-- name: subscribers_with_view
-- The lock of a row's table: whoever adds or removes a subscriber waits for what is under way, and holds up what comes.
SELECT code, view FROM {schema}.subscriber WHERE view IS NOT NULL ORDER BY code FOR SHARE

-- name: subscribers_lock
LOCK TABLE {schema}.subscriber IN EXCLUSIVE MODE

-- name: subscriber_add
INSERT INTO {schema}.subscriber (code, tier, topics, view, added_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (code) DO NOTHING RETURNING code

-- name: subscriber_remove
DELETE FROM {schema}.subscriber WHERE code = $1 RETURNING view

-- name: view_unpublished_forget
-- A topic that is taken away takes nothing more.
DELETE FROM {schema}.outbox o USING {schema}.event e
WHERE e.position = o.position AND e.aggregatetype = $1

-- name: view_last
-- Where the lines of a topic that once was stand in the log: a subscriber that comes back goes on from there.
SELECT aggregateid AS dossier, max(sequence) AS sequence, max(recorded) AS recorded
FROM {schema}.event WHERE aggregatetype = $1 GROUP BY aggregateid

-- name: view_heads
SELECT subscriber, dossier, sequence, recorded FROM {schema}.view_head WHERE dossier = ANY ($1::text[])

-- name: view_heads_put
INSERT INTO {schema}.view_head (subscriber, dossier, sequence, recorded)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[])
ON CONFLICT (dossier, subscriber) DO UPDATE SET sequence = excluded.sequence, recorded = excluded.recorded

-- name: dossiers_since
-- Dossiers with an event since then that anybody may see, with how far their home's events are applied here.
SELECT d.code, d.agency, d.deciding_agency, i.sequence
FROM {schema}.dossier d
JOIN (SELECT DISTINCT aggregateid FROM {schema}.event
      WHERE aggregatetype IN ('public.dossier', 'transfer') AND recorded >= $1) recent ON recent.aggregateid = d.code
JOIN {schema}.inbox i ON i.topic = 'lienthong.dossier.v1' AND i.key = d.code
WHERE NOT d.confidential ORDER BY d.code
