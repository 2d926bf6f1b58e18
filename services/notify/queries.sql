-- The statements of notify. Rows go in as one JSON array: a batch is one statement.

-- name: dossiers_lock
SELECT code, state, agency, deciding_agency, procedure, contact_ref, return_by, channel, received_at, due_at, fee, paid,
       last_paid, sequence, recorded
FROM notify.dossier WHERE code = ANY ($1::text[]) ORDER BY code FOR UPDATE

-- name: dossiers_put
INSERT INTO notify.dossier
SELECT * FROM jsonb_populate_recordset(NULL::notify.dossier, $1)
ON CONFLICT (code) DO UPDATE SET state = excluded.state, agency = excluded.agency,
    deciding_agency = excluded.deciding_agency, procedure = excluded.procedure, contact_ref = excluded.contact_ref,
    return_by = excluded.return_by, channel = excluded.channel, received_at = excluded.received_at, due_at = excluded.due_at, fee = excluded.fee,
    paid = excluded.paid, last_paid = excluded.last_paid, sequence = excluded.sequence, recorded = excluded.recorded

-- name: dossiers_publish
UPDATE notify.dossier d SET sequence = n.sequence, recorded = n.recorded
FROM unnest($1::text[], $2::int[], $3::timestamptz[]) AS n(code, sequence, recorded)
WHERE d.code = n.code

-- name: contacts
SELECT contact_ref, nonce, ciphertext, wrapped FROM notify.contact WHERE contact_ref = ANY ($1::text[])

-- name: contacts_put
INSERT INTO notify.contact (contact_ref, nonce, ciphertext, wrapped)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
ON CONFLICT (contact_ref) DO UPDATE SET nonce = excluded.nonce, ciphertext = excluded.ciphertext,
    wrapped = excluded.wrapped

-- name: waiting_dossiers
-- Of the acts that wait for these contacts.
SELECT DISTINCT dossier FROM notify.telling WHERE contact_ref = ANY ($1::text[])

-- name: tellings_of_contacts
SELECT event, dossier, agency, act, happened, recorded, contact_ref, facts, met_by, decide_by
FROM notify.telling WHERE contact_ref = ANY ($1::text[]) AND dossier = ANY ($2::text[]) ORDER BY event

-- name: tellings_due
-- Acts that have waited long enough, and those whose contact came while another process decided that it had not.
SELECT t.event, t.dossier, t.agency, t.act, t.happened, t.recorded, t.contact_ref, t.facts, t.met_by, t.decide_by
FROM notify.telling t
WHERE t.decide_by <= $1 OR EXISTS (SELECT 1 FROM notify.contact c WHERE c.contact_ref = t.contact_ref)
ORDER BY t.event LIMIT 500

-- name: contacts_missing
-- The contacts that acts have waited long enough for.
SELECT DISTINCT t.contact_ref FROM notify.telling t
WHERE t.decide_by <= $1 AND t.contact_ref IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM notify.contact c WHERE c.contact_ref = t.contact_ref)
LIMIT 500

-- name: tellings_put
INSERT INTO notify.telling SELECT * FROM jsonb_populate_recordset(NULL::notify.telling, $1)

-- name: tellings_met
UPDATE notify.telling t SET met_by = n.event
FROM unnest($1::text[], $2::text[], $3::uuid[]) AS n(dossier, act, event)
WHERE t.dossier = n.dossier AND t.act = n.act AND t.met_by IS NULL

-- name: tellings_take
-- An act is decided once: by who takes its row.
DELETE FROM notify.telling WHERE event = ANY ($1::uuid[]) RETURNING event

-- name: restored
SELECT taken, at FROM notify.restored

-- name: restored_put
INSERT INTO notify.restored (taken, at) VALUES ($1, $2)

-- name: untold_put
INSERT INTO notify.untold (event, dossier, act, recorded, reason)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
ON CONFLICT (event) DO NOTHING

-- name: notices_unsent
-- Those that an act of their dossier may overtake.
SELECT * FROM notify.notice
WHERE dossier = ANY ($1::text[]) AND matter = ANY ($2::text[]) AND state IN ('planned', 'held')
ORDER BY id FOR UPDATE

-- name: notices_redirectable
-- Nobody has them and nobody may have them: where they go can still change.
SELECT id, recipient, channel, nonce, ciphertext, wrapped FROM notify.notice
WHERE recipient = ANY ($1::text[]) AND state IN ('planned', 'held') AND NOT in_flight AND NOT bound
      AND wrapped IS NOT NULL
ORDER BY id FOR UPDATE

-- name: notice_reseal
UPDATE notify.notice SET nonce = $2, ciphertext = $3, wrapped = $4 WHERE id = $1

-- name: opted_out
SELECT phone_hash FROM notify.opt_out WHERE phone_hash = ANY ($1::text[])

-- name: opt_out_put
INSERT INTO notify.opt_out (phone_hash, since, who) VALUES ($1, $2, $3) ON CONFLICT (phone_hash) DO NOTHING

-- name: opt_out_drop
DELETE FROM notify.opt_out WHERE phone_hash = $1

-- name: opt_outs
-- All of them, when there are others than were known: how many, and the latest.
SELECT phone_hash FROM notify.opt_out

-- name: opt_outs_mark
SELECT count(*) || ' ' || coalesce(max(since)::text, '') AS mark FROM notify.opt_out

-- name: notices_unsent_of_contacts
SELECT n.* FROM notify.notice n
WHERE n.recipient = ANY ($1::text[]) AND n.state IN ('planned', 'held') AND n.dossier = ANY ($2::text[])
ORDER BY n.id FOR UPDATE

-- name: dossiers_of_contacts
SELECT code FROM notify.dossier WHERE contact_ref = ANY ($1::text[])

-- name: notices_lock
SELECT * FROM notify.notice WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE

-- name: notice_dossiers
SELECT DISTINCT dossier FROM notify.notice WHERE id = ANY ($1::uuid[])

-- name: notices_move
UPDATE notify.notice n SET state = u.state, provider = u.provider, attempts = u.attempts, rounds = u.rounds,
    tried = u.tried, asked = u.asked, bound = u.bound, in_flight = u.in_flight, due = u.due, next_at = u.next_at,
    held_until = u.held_until, sent_at = u.sent_at, delivered_at = u.delivered_at, post_at = u.post_at,
    reason = u.reason, receipt_by = u.receipt_by
FROM jsonb_to_recordset($1) AS u(
    id uuid, state text, provider text, attempts int, rounds int, tried text[], asked text[], bound boolean, in_flight boolean,
    due boolean, next_at timestamptz, held_until timestamptz, sent_at timestamptz, delivered_at timestamptz,
    post_at timestamptz, reason text, receipt_by timestamptz)
WHERE n.id = u.id

-- name: notices_forget
-- Erased: what was sealed for these people goes with their key.
UPDATE notify.notice SET nonce = NULL, ciphertext = NULL, wrapped = NULL
WHERE dossier = ANY ($1::text[]) AND recipient = ANY ($2::text[]) AND wrapped IS NOT NULL

-- name: orders_forget
UPDATE notify.postal_order SET due = false, next_at = NULL, state = 'cancelled', reason = 'erased', changed_at = $2
WHERE contact_ref = ANY ($1::text[]) AND state = 'planned' AND NOT in_flight

-- name: texts_forget
-- Texts that are older than they are kept.
UPDATE notify.notice SET nonce = NULL, ciphertext = NULL, wrapped = NULL
WHERE id IN (SELECT id FROM notify.notice WHERE id < $1 AND id > $2 AND wrapped IS NOT NULL
             AND state NOT IN ('planned', 'held') ORDER BY id LIMIT 1000)
RETURNING id

-- name: look
-- Whether there is anything to do at this instant: one statement for an idle second.
SELECT EXISTS (SELECT 1 FROM notify.notice WHERE due) AS due,
       EXISTS (SELECT 1 FROM notify.notice WHERE next_at <= $1) AS retry,
       EXISTS (SELECT 1 FROM notify.notice WHERE state = 'held' AND NOT due AND NOT in_flight AND next_at IS NULL) AS held,
       EXISTS (SELECT 1 FROM notify.notice WHERE state IN ('planned', 'held', 'unknown') AND expires_at <= $1)
           OR EXISTS (SELECT 1 FROM notify.notice WHERE receipt_by <= $1) AS expired,
       EXISTS (SELECT 1 FROM notify.notice WHERE post_at IS NOT NULL
               AND (post_at <= $1 OR state IN ('failed', 'expired'))) AS post,
       EXISTS (SELECT 1 FROM notify.telling) AS tellings,
       EXISTS (SELECT 1 FROM notify.postal_order WHERE due OR next_at <= $1) AS orders,
       EXISTS (SELECT 1 FROM notify.postal_order WHERE track_at <= $1) AS track

-- name: notices_retry
UPDATE notify.notice SET due = true, next_at = NULL
WHERE id IN (SELECT id FROM notify.notice WHERE next_at <= $1 ORDER BY next_at LIMIT 1000 FOR UPDATE SKIP LOCKED)

-- name: notices_release
-- The quiet hours are over: what was held goes out in the order planned.
UPDATE notify.notice SET due = true
WHERE id IN (SELECT id FROM notify.notice WHERE state = 'held' AND NOT due AND NOT in_flight AND next_at IS NULL ORDER BY id LIMIT 5000
             FOR UPDATE SKIP LOCKED)

-- name: notices_to_hold
SELECT id FROM notify.notice WHERE due AND NOT bound AND NOT urgent AND state = 'planned' ORDER BY id LIMIT 1000

-- name: notices_waiting
-- From the partial index of what is not over yet.
SELECT state, count(*) AS notices, min(planned_at) AS oldest FROM notify.notice
WHERE state IN ('planned', 'held', 'unknown') GROUP BY state

-- name: notices_due
-- In the order planned, and of each recipient only the first that is unsent: the next follows when that has gone. At most
-- $1 urgent ones, which wait for no others, $2 fresh ones and $3 that were held. The first of each recipient is looked up
-- by its index, whatever the planner knows of a table that has just begun to grow: a join was planned as a product.
-- $4 are the providers that can take nothing now, $5 those that can: what waits for one of $4 alone stands in nobody's way.
(SELECT id, dossier, agency, recipient, state, provider, bound, tried, parts, urgent
 FROM notify.notice n
 WHERE due AND urgent
       AND id = (SELECT e.id FROM notify.notice e WHERE e.recipient = n.recipient AND e.channel = n.channel
                 AND e.state IN ('planned', 'held') AND e.urgent ORDER BY e.id LIMIT 1)
       AND NOT (bound AND provider = ANY ($4::text[])) AND (bound OR NOT tried @> $5::text[] OR tried @> $4::text[])
 ORDER BY id LIMIT $1)
UNION ALL
(SELECT id, dossier, agency, recipient, state, provider, bound, tried, parts, urgent
 FROM notify.notice n
 WHERE due AND NOT urgent AND state = 'planned'
       AND id = (SELECT e.id FROM notify.notice e WHERE e.recipient = n.recipient AND e.channel = n.channel
                 AND e.state IN ('planned', 'held') ORDER BY e.id LIMIT 1)
       AND NOT (bound AND provider = ANY ($4::text[])) AND (bound OR NOT tried @> $5::text[] OR tried @> $4::text[])
 ORDER BY id LIMIT $2)
UNION ALL
(SELECT id, dossier, agency, recipient, state, provider, bound, tried, parts, urgent
 FROM notify.notice n
 WHERE due AND NOT urgent AND state = 'held'
       AND id = (SELECT e.id FROM notify.notice e WHERE e.recipient = n.recipient AND e.channel = n.channel
                 AND e.state IN ('planned', 'held') ORDER BY e.id LIMIT 1)
       AND NOT (bound AND provider = ANY ($4::text[])) AND (bound OR NOT tried @> $5::text[] OR tried @> $4::text[])
 ORDER BY id LIMIT $3)

-- name: notices_begin
-- The attempt is on record before the provider is called; a notice that was overtaken meanwhile is not begun.
WITH free AS (
    SELECT n.id, b.provider, b.mark, b.price
    FROM notify.notice n JOIN unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) AS b(id, provider, mark, price)
         USING (id)
    WHERE n.due ORDER BY n.id FOR UPDATE OF n SKIP LOCKED)
UPDATE notify.notice n
SET due = false, in_flight = true, state = 'planned', provider = f.provider, attempts = n.attempts + 1, mark = f.mark,
    cost = n.parts * f.price, reason = NULL,
    asked = CASE WHEN f.provider = ANY (n.asked) THEN n.asked ELSE n.asked || f.provider END
FROM free f WHERE n.id = f.id
RETURNING n.id, n.dossier, n.agency, n.recipient, n.parts, n.bound, n.nonce, n.ciphertext, n.wrapped

-- name: notices_later
-- There is no provider for them now, or their agency's day is spent.
UPDATE notify.notice SET due = false, next_at = $2, reason = $3 WHERE id = ANY ($1::uuid[]) AND due

-- name: notices_at_once
-- The clock was put back, or a load changed the budgets: what waits for a time is looked at anew.
UPDATE notify.notice SET next_at = $1 WHERE next_at > $1 AND ($2 OR reason = 'over-budget')

-- name: parts_spent
-- Of a day's budgets: what was sent that day, and what may have been.
SELECT agency, sum(parts) AS parts FROM notify.notice
WHERE id >= $1 AND channel = 'sms' AND (sent_at >= $2 OR (sent_at IS NULL AND (in_flight OR bound OR state = 'unknown')))
GROUP BY agency

-- name: notices_in_flight
SELECT id, dossier, provider, mark FROM notify.notice WHERE in_flight ORDER BY id

-- name: notices_expired
SELECT id FROM notify.notice
WHERE (state IN ('planned', 'held', 'unknown') AND expires_at <= $1 OR receipt_by <= $1) AND NOT in_flight LIMIT 500

-- name: notices_for_post
SELECT id FROM notify.notice
WHERE post_at IS NOT NULL AND (post_at <= $1 OR state IN ('failed', 'expired')) ORDER BY post_at LIMIT 100

-- name: notice_sealed
SELECT id, recipient, nonce, ciphertext, wrapped FROM notify.notice WHERE id = ANY ($1::uuid[]) AND wrapped IS NOT NULL

-- name: notices_page
SELECT n.id, n.dossier, n.act, n.channel, n.urgent, n.provider, n.state, n.reason, n.parts, n.planned_at, n.sent_at,
       n.delivered_at, n.recipient, n.nonce, n.ciphertext, n.wrapped
FROM notify.notice n JOIN notify.dossier d ON d.code = n.dossier
WHERE ($1::text IS NULL OR n.dossier = $1) AND ($2::text IS NULL OR n.state = $2)
  AND ($3::text[] IS NULL OR d.agency = ANY ($3) OR d.deciding_agency = ANY ($3))
  AND ($4::uuid IS NULL OR n.id > $4)
ORDER BY n.id LIMIT $5

-- name: orders_put
INSERT INTO notify.postal_order SELECT * FROM jsonb_populate_recordset(NULL::notify.postal_order, $1)

-- name: orders_lock
SELECT * FROM notify.postal_order WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE

-- name: order_sealed
-- What opens to the address: a letter's own content, else the contact.
SELECT o.contact_ref, coalesce(n.nonce, c.nonce) AS nonce, coalesce(n.ciphertext, c.ciphertext) AS ciphertext,
       coalesce(n.wrapped, c.wrapped) AS wrapped
FROM notify.postal_order o
     LEFT JOIN notify.notice n ON n.id = o.notice
     LEFT JOIN notify.contact c ON c.contact_ref = o.contact_ref
WHERE o.id = $1

-- name: order_dossiers
SELECT DISTINCT dossier FROM notify.postal_order WHERE id = ANY ($1::uuid[])

-- name: orders_cancel
-- Letters that were overtaken before the carrier had them.
UPDATE notify.postal_order SET state = 'cancelled', due = false, next_at = NULL, changed_at = $2
WHERE notice = ANY ($1::uuid[]) AND state = 'planned'

-- name: orders_move
UPDATE notify.postal_order o SET state = u.state, due = u.due, in_flight = u.in_flight, rounds = u.rounds,
    next_at = u.next_at, amount = u.amount, reason = u.reason, changed_at = u.changed_at, track_at = u.track_at,
    polls = u.polls, unsure = u.unsure
FROM jsonb_populate_recordset(NULL::notify.postal_order, $1) u
WHERE o.id = u.id

-- name: orders_due
-- With what opens to the address: a letter's own content, else the contact.
SELECT o.id, o.dossier, o.agency, o.kind, o.carrier, o.unsure, o.fee_to_collect, o.planned_at, o.notice, o.contact_ref,
       coalesce(n.nonce, c.nonce) AS nonce, coalesce(n.ciphertext, c.ciphertext) AS ciphertext,
       coalesce(n.wrapped, c.wrapped) AS wrapped, c.contact_ref IS NOT NULL AS known
FROM notify.postal_order o
     LEFT JOIN notify.notice n ON n.id = o.notice
     LEFT JOIN notify.contact c ON c.contact_ref = o.contact_ref
WHERE o.due OR o.next_at <= $1 ORDER BY o.id LIMIT $2

-- name: orders_begin
-- $3: whom they go to; $4: by how much that carrier's charge is more than that of the one before.
UPDATE notify.postal_order o SET due = false, next_at = NULL, in_flight = true, mark = $2, carrier = $3,
    fee_to_collect = o.fee_to_collect + u.more
FROM unnest($1::uuid[], $4::bigint[]) AS u (id, more)
WHERE o.id = u.id AND (o.due OR o.next_at IS NOT NULL) AND o.state = 'planned'
RETURNING o.id, o.fee_to_collect

-- name: orders_in_flight
SELECT id, dossier, carrier, mark FROM notify.postal_order WHERE in_flight ORDER BY id

-- name: orders_page
SELECT o.id, o.dossier, o.agency, o.kind, o.carrier, o.state, o.fee_to_collect, o.amount, o.reason, o.planned_at,
       o.changed_at, o.notice
FROM notify.postal_order o JOIN notify.dossier d ON d.code = o.dossier
WHERE ($1::text IS NULL OR o.dossier = $1) AND ($2::text IS NULL OR o.state = $2)
  AND ($3::text[] IS NULL OR d.agency = ANY ($3) OR d.deciding_agency = ANY ($3))
  AND ($4::uuid IS NULL OR o.id > $4)
ORDER BY o.id LIMIT $5

-- name: told
-- By the hour in which intake recorded the act: what asked for a notice, what was planned, what has a reason, what waits.
SELECT hour, act, count(*) AS asked, count(*) FILTER (WHERE kind = 'notice') AS notices,
       count(*) FILTER (WHERE kind = 'reason') AS reasons, count(*) FILTER (WHERE kind = 'neither') AS neither
FROM (
    SELECT date_trunc('hour', act_recorded) AS hour, act, event, 'notice' AS kind FROM notify.notice
    WHERE ($1::timestamptz IS NULL OR act_recorded >= $1) GROUP BY 1, 2, 3
    UNION ALL
    SELECT date_trunc('hour', recorded), act, event, 'reason' FROM notify.untold
    WHERE $1::timestamptz IS NULL OR recorded >= $1
    UNION ALL
    SELECT date_trunc('hour', recorded), act, event, 'neither' FROM notify.telling
    WHERE $1::timestamptz IS NULL OR recorded >= $1) t
GROUP BY hour, act ORDER BY hour, act

-- name: told_missing
SELECT DISTINCT dossier FROM notify.telling
WHERE $1::timestamptz IS NULL OR recorded >= $1 ORDER BY dossier LIMIT 100

-- name: untold_reasons
SELECT reason, count(*) AS acts FROM notify.untold
WHERE $1::timestamptz IS NULL OR recorded >= $1 GROUP BY reason ORDER BY reason

-- name: orders_to_track
-- Put off before they are asked for: who dies meanwhile asks again later, not at once.
UPDATE notify.postal_order SET track_at = $3, polls = polls + 1
WHERE id IN (SELECT id FROM notify.postal_order WHERE track_at <= $1 AND carrier = $2 AND polls = $4 ORDER BY track_at
             LIMIT 50 FOR UPDATE SKIP LOCKED)
RETURNING id

-- name: polls_due
-- How often the orders that are to be asked for have been asked for, by carrier.
SELECT DISTINCT carrier, polls FROM notify.postal_order WHERE track_at <= $1 ORDER BY carrier, polls

-- name: orders_of_day
-- With what opens to the address: a letter's own content, else the contact.
SELECT o.id, o.dossier, o.agency, o.kind, o.carrier, o.fee_to_collect, o.contact_ref,
       coalesce(n.nonce, c.nonce) AS nonce, coalesce(n.ciphertext, c.ciphertext) AS ciphertext,
       coalesce(n.wrapped, c.wrapped) AS wrapped
FROM notify.postal_order o
     LEFT JOIN notify.notice n ON n.id = o.notice
     LEFT JOIN notify.contact c ON c.contact_ref = o.contact_ref
WHERE o.id >= $1 AND o.id < $2 AND o.state <> 'cancelled' AND ($3::text IS NULL OR o.carrier = $3)
      AND ($4::text[] IS NULL OR o.agency = ANY ($4))
ORDER BY o.id

-- name: postal_tasks
SELECT id, dossier, agency, kind, carrier, reason, changed_at AS returned_at FROM notify.postal_order
WHERE state = 'returned' AND handled_at IS NULL AND ($1::text[] IS NULL OR agency = ANY ($1)) ORDER BY id LIMIT 200

-- name: order_handle
UPDATE notify.postal_order SET handled_at = coalesce(handled_at, $2), handled_by = coalesce(handled_by, $3),
    handled_note = coalesce(handled_note, $4)
WHERE id = $1 AND state = 'returned' AND ($5::text[] IS NULL OR agency = ANY ($5))
RETURNING handled_at

-- name: notice_counts
SELECT agency, channel, provider, state, reason, count(*) AS notices, sum(parts) AS parts FROM notify.notice
WHERE id >= $1 AND id < $2 AND ($3::text[] IS NULL OR agency = ANY ($3))
GROUP BY agency, channel, provider, state, reason ORDER BY agency, channel, provider, state, reason

-- name: statement_sms
-- $1: no notice that was sent on the day is older.
SELECT agency, provider, count(*) AS notices, sum(parts) AS parts, sum(cost)::bigint AS cost FROM notify.notice
WHERE id >= $1 AND channel = 'sms' AND sent_at >= $2 AND sent_at < $3 AND ($4::text[] IS NULL OR agency = ANY ($4))
GROUP BY agency, provider ORDER BY agency, provider

-- name: statement_post
SELECT agency, carrier AS provider, count(*) AS notices FROM notify.postal_order
WHERE id >= $1 AND id < $2 AND state NOT IN ('planned', 'cancelled') AND ($3::text[] IS NULL OR agency = ANY ($3))
GROUP BY agency, carrier ORDER BY agency, carrier

-- name: notices_seen
-- The newest first.
SELECT n.id, n.dossier, n.agency, n.act, n.channel, n.urgent, n.provider, n.state, n.reason, n.parts, n.planned_at, n.sent_at,
       n.delivered_at, n.recipient, n.nonce, n.ciphertext, n.wrapped
FROM notify.notice n JOIN notify.dossier d ON d.code = n.dossier
WHERE ($1::text IS NULL OR n.dossier = $1) AND ($2::text IS NULL OR n.state = $2)
  AND ($3::text[] IS NULL OR d.agency = ANY ($3) OR d.deciding_agency = ANY ($3))
  AND ($4::uuid IS NULL OR n.id < $4) AND ($5::text IS NULL OR n.channel = $5) AND ($6::text IS NULL OR n.provider = $6)
ORDER BY n.id DESC LIMIT $7
