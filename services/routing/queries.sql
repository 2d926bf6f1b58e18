-- All SQL of routing. {schema} is its own.

-- name: dossiers_lock
SELECT d.code, d.state, d.agency, d.deciding_agency, d.procedure, d.confidential, d.due_at, d.routed, d.last_event,
       d.transfer_sequence, d.transfer_recorded, d.public_sequence, d.public_recorded, d.home, d.copied_dossier,
       d.copied_transfer
FROM {schema}.dossier d JOIN unnest($1::text[]) AS w(code) USING (code)
ORDER BY d.code
FOR UPDATE OF d

-- name: dossiers_write
INSERT INTO {schema}.dossier (code, state, agency, deciding_agency, procedure, confidential, due_at, routed, last_event,
                              transfer_sequence, transfer_recorded, public_sequence, public_recorded, home,
                              copied_dossier, copied_transfer)
SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[],
                     $8::boolean[], $9::uuid[], $10::int[], $11::timestamptz[], $12::int[], $13::timestamptz[],
                     $14::text[], $15::int[], $16::int[])
ON CONFLICT (code) DO UPDATE SET state = excluded.state, agency = excluded.agency,
    deciding_agency = excluded.deciding_agency, procedure = excluded.procedure, confidential = excluded.confidential,
    due_at = excluded.due_at, routed = excluded.routed, last_event = excluded.last_event,
    transfer_sequence = excluded.transfer_sequence, transfer_recorded = excluded.transfer_recorded,
    public_sequence = excluded.public_sequence, public_recorded = excluded.public_recorded,
    copied_dossier = excluded.copied_dossier, copied_transfer = excluded.copied_transfer

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
SELECT t.*, d.state AS dossier_state, d.home
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.id = $1

-- name: transfers_of_dossier
-- $2: after this id; $3: these states; $4: one agency, or any; $5: the asker's agencies, or all.
SELECT t.*, d.state AS dossier_state, d.home
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
SELECT t.*, d.state AS dossier_state, d.home
FROM found JOIN {schema}.transfer t USING (id) JOIN {schema}.dossier d ON d.code = t.dossier
ORDER BY t.id

-- name: transfers_of_site
SELECT t.*, d.state AS dossier_state, d.home
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.id > $1 AND t.state = ANY ($2::text[])
ORDER BY t.id LIMIT $3

-- name: work_received
-- Open transfers that lie with these agencies, by due date. $2, $3: after this place; $4: due from here on; $5: and before.
SELECT t.*, d.state AS dossier_state, d.home, coalesce(t.due_at, '9999-01-01Z') AS place
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.receiver = ANY ($1::text[]) AND t.state IN ('delivered', 'accepted')
  AND (coalesce(t.due_at, '9999-01-01Z'), t.id) > ($2, $3)
  AND coalesce(t.due_at, '9999-01-01Z') >= $4 AND coalesce(t.due_at, '9999-01-01Z') < $5
ORDER BY place, t.id LIMIT $6

-- name: work_sent
-- Open transfers that these agencies have sent, by due date. $2, $3: after this place.
SELECT t.*, d.state AS dossier_state, d.home, coalesce(t.due_at, '9999-01-01Z') AS place
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.sender = ANY ($1::text[]) AND t.state IN ('requested', 'sent', 'delivered', 'accepted')
  AND (coalesce(t.due_at, '9999-01-01Z'), t.id) > ($2, $3)
ORDER BY place, t.id LIMIT $4

-- name: work_back
-- What these agencies sent and got back, or took back, and what they have not gone on with: the longest waiting first.
SELECT t.*, d.state AS dossier_state, d.home, t.changed_at AS place
FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.sender = ANY ($1::text[]) AND t.state IN ('refused', 'returned', 'recalled') AND t.replaced_by IS NULL
  AND NOT t.undone AND d.home IS NULL AND d.state NOT IN (3, 8, 9, 10) AND (t.changed_at, t.id) > ($2, $3)
ORDER BY place, t.id LIMIT $4

-- name: work_counted
-- How many each list holds. $2: now; $3: the end of today.
SELECT count(*) AS incoming, count(*) FILTER (WHERE due_at >= $2 AND due_at < $3) AS due,
       count(*) FILTER (WHERE due_at < $2) AS overdue,
       (SELECT count(*) FROM {schema}.transfer
        WHERE sender = ANY ($1::text[]) AND state IN ('requested', 'sent', 'delivered', 'accepted')) AS outgoing,
       (SELECT count(*) FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
        WHERE t.sender = ANY ($1::text[]) AND t.state IN ('refused', 'returned', 'recalled') AND t.replaced_by IS NULL
          AND NOT t.undone AND d.home IS NULL AND d.state NOT IN (3, 8, 9, 10)) AS back
FROM {schema}.transfer WHERE receiver = ANY ($1::text[]) AND state IN ('delivered', 'accepted')

-- name: transfers_at
-- Open transfers of our own dossiers that lie with these agencies; of others' their home decides.
SELECT t.id, t.dossier FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.receiver = ANY ($1::text[]) AND t.state IN ('requested', 'sent', 'delivered', 'accepted') AND d.home IS NULL
ORDER BY t.dossier, t.id LIMIT $2

-- name: document_lock
SELECT * FROM {schema}.document WHERE id = $1 FOR UPDATE

-- name: document
SELECT * FROM {schema}.document WHERE id = $1

-- name: document_add
-- Nothing is returned when a document of this id exists.
INSERT INTO {schema}.document (id, number, date, kind, sender, receiver, title, state, sent_at, changed_at, dossier,
                               replaces, ref, digest, reason, version, recorded, home, worked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (id) DO NOTHING
RETURNING arrival

-- name: document_move
UPDATE {schema}.document
SET state = $2, before = $3, changed_at = $4, assignee = $5, reason = $6, version = $7, recorded = $8
WHERE id = $1

-- name: documents_to_tell
SELECT id, coalesce(home, worked_at) AS site FROM {schema}.document
WHERE told < version AND (home IS NOT NULL OR worked_at IS NOT NULL)
ORDER BY changed_at, id LIMIT $1

-- name: document_told
UPDATE {schema}.document SET told = $2 WHERE id = $1

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

-- name: transfers_to_send
-- Transfers of our own dossiers that wait for another site, in the order in which they were asked for.
SELECT t.id, t.dossier, t.receiver FROM {schema}.transfer t JOIN {schema}.dossier d ON d.code = t.dossier
WHERE t.state = 'requested' AND d.home IS NULL AND (t.asked_at, t.id) > ($1, $2)
ORDER BY t.asked_at, t.id LIMIT $3

-- name: sealed_put
INSERT INTO {schema}.sealed (dossier, contact_ref, nonce, ciphertext, wrapped)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (dossier) DO UPDATE SET contact_ref = excluded.contact_ref, nonce = excluded.nonce,
    ciphertext = excluded.ciphertext, wrapped = excluded.wrapped

-- name: sealed
SELECT contact_ref, nonce, ciphertext, wrapped FROM {schema}.sealed WHERE dossier = $1

-- name: behind_copies
-- Our own dossiers of which the upper site has not been told all that is known here.
SELECT d.code FROM {schema}.dossier d
JOIN {schema}.inbox i ON i.key = d.code AND i.topic = 'lienthong.dossier.v1'
WHERE d.home IS NULL AND d.code > $1 AND (d.copied_dossier < i.sequence OR d.copied_transfer < d.transfer_sequence)
ORDER BY d.code LIMIT $2

-- name: applied_of
SELECT key, sequence FROM {schema}.inbox WHERE topic = 'lienthong.dossier.v1' AND key = ANY ($1::text[])

-- name: copies_lock
SELECT c.code, c.home, c.dossier_sequence, c.transfer_sequence, c.sequence, c.recorded
FROM {schema}.copy c JOIN unnest($1::text[]) AS w(code) USING (code)
ORDER BY c.code FOR UPDATE OF c

-- name: copies_write
INSERT INTO {schema}.copy (code, home, dossier_sequence, transfer_sequence, sequence, recorded)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::timestamptz[])
ON CONFLICT (code) DO UPDATE SET dossier_sequence = excluded.dossier_sequence,
    transfer_sequence = excluded.transfer_sequence, sequence = excluded.sequence, recorded = excluded.recorded

-- name: links
-- All, or one.
SELECT l.*, o.epoch, o.number, o.sent_epoch, o.sent_number, o.confirmed_epoch, o.confirmed_number, o.recovering,
       i.epoch AS in_epoch, i.number AS in_number
FROM {schema}.link l JOIN {schema}.link_out o USING (peer) JOIN {schema}.link_in i USING (peer)
WHERE $1::text IS NULL OR peer = $1
ORDER BY l.side DESC, l.peer

-- name: link_put
INSERT INTO {schema}.link (peer, side, name, state, bus, keys, ticket, reaches)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (peer) DO UPDATE SET side = excluded.side, name = excluded.name, state = excluded.state, bus = excluded.bus,
    keys = excluded.keys, ticket = excluded.ticket

-- name: link_states_put
WITH made AS (INSERT INTO {schema}.link_out (peer) VALUES ($1) ON CONFLICT (peer) DO NOTHING)
INSERT INTO {schema}.link_in (peer) VALUES ($1) ON CONFLICT (peer) DO NOTHING

-- name: link_confirm
UPDATE {schema}.link SET state = 'active', name = $2, keys = $3 WHERE peer = $1

-- name: link_active
UPDATE {schema}.link SET state = 'active' WHERE peer = $1 AND state = 'joined'

-- name: link_pause
UPDATE {schema}.link SET paused = $2 WHERE peer = $1 RETURNING peer

-- name: link_heard
UPDATE {schema}.link
SET heard = now(), tick = $2, offset_ms = $3, complete = coalesce($4, complete), reaches = $5, keys = coalesce($6, keys),
    knows = $7, certificates = coalesce($8, certificates)
WHERE peer = $1 AND tick < $2 RETURNING peer

-- name: link_refused
UPDATE {schema}.link
SET refused = jsonb_set(refused, ARRAY[$2::text], to_jsonb(coalesce((refused ->> $2)::bigint, 0) + $3::bigint))
WHERE peer = $1

-- name: link_directory_sent
UPDATE {schema}.link SET directory = $2 WHERE peer = $1

-- name: out_lock
SELECT * FROM {schema}.link_out WHERE peer = $1 FOR UPDATE

-- name: out_write
UPDATE {schema}.link_out
SET epoch = $2, number = $3, chain = $4, sent_epoch = $5, sent_number = $6, confirmed_epoch = $7, confirmed_number = $8,
    recovering = $9
WHERE peer = $1

-- name: sent_put
INSERT INTO {schema}.link_sent (peer, epoch, number, id, at, kind, digest, chain, body, person)
SELECT $1, * FROM unnest($2::int[], $3::bigint[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
                         $9::text[], $10::text[])

-- name: sent_with_person
SELECT ord, digest, body FROM {schema}.link_sent WHERE person = $1 ORDER BY ord FOR UPDATE

-- name: sent_forget
UPDATE {schema}.link_sent SET body = $2, person = NULL WHERE ord = $1

-- name: received_with_person
SELECT peer, epoch, number, digest, body FROM {schema}.link_received WHERE person = $1
ORDER BY peer, epoch, number FOR UPDATE

-- name: received_forget
UPDATE {schema}.link_received SET body = $4, person = NULL WHERE peer = $1 AND epoch = $2 AND number = $3

-- name: erased_upto
SELECT max(at) FROM {schema}.erased WHERE site = $1

-- name: erased_put
INSERT INTO {schema}.erased (site, contact_ref, at) VALUES ($1, $2, $3) ON CONFLICT (site, contact_ref) DO NOTHING
RETURNING contact_ref

-- name: erased
SELECT site, contact_ref FROM {schema}.erased
JOIN unnest($1::text[], $2::text[]) AS w(site, contact_ref) USING (site, contact_ref)

-- name: sealed_forget
-- The person of a home, behind its legs that are worked on here.
DELETE FROM {schema}.sealed s USING {schema}.dossier d
WHERE d.code = s.dossier AND s.contact_ref = $2 AND d.home = $1

-- name: sent_page
-- From after a place on, in one epoch: what is published next.
SELECT epoch, number, digest, chain, body FROM {schema}.link_sent
WHERE peer = $1 AND (epoch, number) > ($2, $3) ORDER BY epoch, number LIMIT $4

-- name: sent_moved
-- The records up to a place are on the bus; a rewind that came meanwhile stands.
UPDATE {schema}.link_out SET sent_epoch = $4, sent_number = $5
WHERE peer = $1 AND sent_epoch = $2 AND sent_number = $3 AND NOT recovering

-- name: sent_chain
SELECT chain FROM {schema}.link_sent WHERE peer = $1 AND epoch = $2 AND number = $3

-- name: sent_chain_before_epoch
SELECT chain FROM {schema}.link_sent WHERE peer = $1 AND epoch < $2 ORDER BY epoch DESC, number DESC LIMIT 1

-- name: sent_to_limbo
UPDATE {schema}.link_sent SET epoch = NULL, number = NULL, chain = NULL WHERE peer = $1 AND (epoch, number) > ($2, $3)

-- name: limbo_forget
DELETE FROM {schema}.link_sent WHERE peer = $1 AND epoch IS NULL AND id = ANY ($2::uuid[])

-- name: limbo
SELECT ord, digest FROM {schema}.link_sent WHERE peer = $1 AND epoch IS NULL ORDER BY ord

-- name: limbo_number
UPDATE {schema}.link_sent s SET epoch = n.epoch, number = n.number, chain = n.chain
FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[]) AS n(ord, epoch, number, chain) WHERE s.ord = n.ord

-- name: back_put
-- What the peer has given back, in its order.
INSERT INTO {schema}.link_back (peer, kind, key, body, digest)
SELECT $1, kind, key, body, digest
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS b(kind, key, body, digest, line) ORDER BY line

-- name: back_forget_all
DELETE FROM {schema}.link_back WHERE peer = $1

-- name: back_whole
UPDATE {schema}.link_out SET whole = $2 WHERE peer = $1 AND whole <> $2

-- name: back_left
SELECT EXISTS (SELECT FROM {schema}.link_back WHERE peer = $1 AND NOT later)

-- name: back_peers
-- Peers that have given back all they have, the upper one first; a lower one's turn comes when the upper's is over.
SELECT o.peer FROM {schema}.link_out o JOIN {schema}.link l USING (peer)
WHERE o.recovering AND o.whole AND (l.side = 'upper' OR NOT EXISTS (
    SELECT FROM {schema}.link_out JOIN {schema}.link u USING (peer) WHERE u.side = 'upper' AND recovering))
ORDER BY l.side DESC, o.peer

-- name: back_page
SELECT ord, kind, key, body, digest FROM {schema}.link_back WHERE peer = $1 AND NOT later ORDER BY ord LIMIT $2

-- name: back_taken
DELETE FROM {schema}.link_back WHERE ord = ANY ($1::bigint[])

-- name: back_later
UPDATE {schema}.link_back b SET later = true, key = w.key FROM unnest($1::bigint[], $2::text[]) AS w(ord, key) WHERE b.ord = w.ord

-- name: back_legs
-- What was said here of these dossiers' legs, which are asked for once more.
SELECT ord, key, body, digest FROM {schema}.link_back
WHERE key = ANY ($1::text[]) AND kind = 'leg' AND peer = $2 ORDER BY ord

-- name: back_documents
SELECT ord, body, digest FROM {schema}.link_back WHERE key = $1 AND kind = 'document' ORDER BY ord

-- name: back_transfers
SELECT DISTINCT key FROM {schema}.link_back WHERE key = ANY ($1::text[]) AND kind = 'transfer'

-- name: lost_put
INSERT INTO {schema}.lost (code, peer, at) VALUES ($1, $2, $3) ON CONFLICT (code) DO NOTHING

-- name: lost
SELECT code FROM {schema}.lost WHERE peer = $1 ORDER BY code LIMIT 1000

-- name: places_of
-- How far dossiers' events are applied here, and whether one is parked.
SELECT key, sequence, waiting = 'parked' AS parked FROM {schema}.inbox
WHERE topic = 'lienthong.dossier.v1' AND key = ANY ($1::text[])

-- name: waiting
SELECT count(*) FILTER (WHERE (epoch, number) > ($2, $3) OR epoch IS NULL) AS waiting FROM {schema}.link_sent
WHERE peer = $1 AND (epoch IS NULL OR (epoch, number) > ($2, $3))

-- name: in_lock
SELECT * FROM {schema}.link_in WHERE peer = $1 FOR UPDATE

-- name: in_read
SELECT * FROM {schema}.link_in WHERE peer = $1

-- name: in_write
UPDATE {schema}.link_in SET epoch = $2, number = $3, chain = $4 WHERE peer = $1

-- name: in_moved
UPDATE {schema}.link_in SET topic_id = $2, next_offset = $3 WHERE peer = $1

-- name: received_ids
SELECT id FROM {schema}.link_received WHERE peer = $1 AND id = ANY ($2::uuid[])

-- name: received_put
INSERT INTO {schema}.link_received (peer, epoch, number, id, at, kind, digest, body, outcome, key, person)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[],
                             $10::text[], $11::text[])

-- name: record_put
INSERT INTO {schema}.link_record (peer, epoch, first, manifest, jws) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (peer, epoch, first) DO NOTHING

-- name: receipts
-- What peers have said of a dossier, each envelope with the manifest under which it came.
SELECT r.peer, r.kind, r.body, m.manifest, m.jws
FROM {schema}.link_received r CROSS JOIN LATERAL (
    SELECT manifest, jws FROM {schema}.link_record
    WHERE peer = r.peer AND epoch = r.epoch AND first <= r.number ORDER BY first DESC LIMIT 1) m
WHERE r.key = $1 ORDER BY r.at, r.id

-- name: received_after
SELECT epoch, number, digest, body FROM {schema}.link_received
WHERE peer = $1 AND (epoch, number) > ($2, $3) ORDER BY epoch, number LIMIT $4

-- name: digests
-- Of each local day since $2 and each direction: how many envelopes, and one digest over theirs in their order.
SELECT 'out' AS direction, (at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date AS day, count(*) AS envelopes,
       encode(sha256(convert_to(string_agg(digest, '' ORDER BY epoch, number), 'UTF8')), 'hex') AS ours
FROM {schema}.link_sent WHERE peer = $1 AND epoch IS NOT NULL AND at >= $2 GROUP BY 2
UNION ALL
SELECT 'in', (at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date, count(*),
       encode(sha256(convert_to(string_agg(digest, '' ORDER BY epoch, number), 'UTF8')), 'hex')
FROM {schema}.link_received WHERE peer = $1 AND at >= $2 GROUP BY 2
ORDER BY 2, 1

-- name: digests_theirs
SELECT day, direction, theirs, differs FROM {schema}.link_digest WHERE peer = $1 AND day >= $2

-- name: digests_put
INSERT INTO {schema}.link_digest (peer, day, direction, theirs)
SELECT $1, * FROM unnest($2::date[], $3::text[], $4::text[])
ON CONFLICT (peer, day, direction) DO UPDATE SET theirs = excluded.theirs

-- name: digest_parts
-- Of one day's envelopes in one of the ledgers ($2), $4 at a time by their numbers: where they lie, and one digest over them.
SELECT epoch, min(number) AS first, max(number) AS last,
       left(encode(sha256(convert_to(string_agg(digest, '' ORDER BY number), 'UTF8')), 'hex'), 16) AS digest
FROM (SELECT epoch, number, digest FROM {schema}.link_sent
      WHERE $2 = 'out' AND peer = $1 AND epoch IS NOT NULL AND (at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date = $3
      UNION ALL
      SELECT epoch, number, digest FROM {schema}.link_received
      WHERE $2 = 'in' AND peer = $1 AND (at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date = $3) AS day
GROUP BY epoch, (number - 1) / $4 ORDER BY 1, 2

-- name: digests_differ
-- Whether that is news.
UPDATE {schema}.link_digest SET differs = $4 WHERE peer = $1 AND day = $2 AND direction = $3 AND differs <> $4::text[]
RETURNING true

-- name: digests_agree
UPDATE {schema}.link_digest SET differs = '{}' WHERE peer = $1 AND differs <> '{}'
    AND NOT (day, direction) IN (SELECT * FROM unnest($2::date[], $3::text[]))

-- name: site_keys
SELECT site, seal FROM {schema}.site_key

-- name: site_keys_put
INSERT INTO {schema}.site_key (site, seal) SELECT site, seal::jsonb FROM unnest($1::text[], $2::text[]) AS w(site, seal)
ON CONFLICT (site) DO UPDATE SET seal = excluded.seal

-- name: adopted
SELECT kind, id, digest FROM {schema}.adopted WHERE peer = $1

-- name: adopted_put
INSERT INTO {schema}.adopted (peer, kind, id, digest) SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
ON CONFLICT (peer, kind, id) DO UPDATE SET digest = excluded.digest
