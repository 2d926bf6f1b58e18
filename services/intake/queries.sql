-- name: dossiers_for_update
SELECT code, body FROM intake.dossier WHERE code = ANY ($1::text[]) ORDER BY code FOR UPDATE

-- name: dossiers
SELECT code, body FROM intake.dossier WHERE code = ANY ($1::text[])

-- name: codes_taken
SELECT code FROM intake.dossier WHERE code = ANY ($1::text[])

-- name: elsewhere
SELECT code, agency FROM intake.elsewhere WHERE code = ANY ($1::text[])
UNION
SELECT code, agency FROM intake.copy WHERE code = ANY ($1::text[])

-- name: elsewhere_put
INSERT INTO intake.elsewhere (code, agency) SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (code, agency) DO NOTHING

-- name: copies_for_update
SELECT code, home, body FROM intake.copy WHERE code = ANY ($1::text[]) ORDER BY code FOR UPDATE

-- name: copy
SELECT code, home, body FROM intake.copy WHERE code = $1

-- name: copies_put
INSERT INTO intake.copy (code, home, agency, deciding_agency, procedure, state, received_at, due_at, paused, overdue_from,
                         late, sequence, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::timestamptz[],
                     $8::timestamptz[], $9::boolean[], $10::timestamptz[], $11::boolean[], $12::int[], $13::text[])
ON CONFLICT (code) DO UPDATE SET agency = excluded.agency, deciding_agency = excluded.deciding_agency,
    state = excluded.state, received_at = excluded.received_at, due_at = excluded.due_at, paused = excluded.paused,
    overdue_from = excluded.overdue_from, late = excluded.late, sequence = excluded.sequence,
    body = excluded.body

-- name: dossiers_update
UPDATE intake.dossier d
SET agency = n.agency, deciding_agency = n.deciding_agency, procedure = n.procedure, state = n.state,
    received_at = n.received_at, due_at = n.due_at, paused = n.paused, overdue_from = n.overdue_from, next_tick = n.next_tick,
    contact_ref = n.contact_ref, sender = n.sender, sequence = n.sequence, recorded = n.recorded, body = n.body
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::timestamptz[],
            $7::timestamptz[], $8::boolean[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[],
            $13::int[], $14::timestamptz[], $15::text[])
     AS n(code, agency, deciding_agency, procedure, state, received_at, due_at, paused, overdue_from,
          next_tick, contact_ref, sender, sequence, recorded, body)
WHERE d.code = n.code

-- name: numbers
-- The last of the numbers reserved for each agency and day; one statement locks each counter until the commit.
INSERT INTO intake.counter AS c (agency, day, last)
SELECT * FROM unnest($1::text[], $2::date[], $3::int[])
ON CONFLICT (agency, day) DO UPDATE SET last = c.last + excluded.last
RETURNING agency, day, last

-- name: source_put
INSERT INTO intake.source (name) VALUES ($1) ON CONFLICT (name) DO NOTHING

-- name: source_find
SELECT number FROM intake.source WHERE name = $1

-- name: source_lock
SELECT FROM intake.source WHERE number = $1 FOR NO KEY UPDATE

-- name: references_find
SELECT ref, code FROM intake.reference WHERE source = $1 AND ref = ANY ($2::text[])

-- name: imported_find
SELECT digest, code FROM intake.imported WHERE source = $1 AND digest = ANY ($2::uuid[])

-- name: imported_ids_find
SELECT id, digest FROM intake.imported_id WHERE source = $1 AND id = ANY ($2::text[])

-- name: contacts_for_update
SELECT contact_ref, person_hash, nonce, ciphertext, wrapped, sequence FROM intake.contact
WHERE person_hash = ANY ($1::text[]) OR contact_ref = ANY ($2::text[]) ORDER BY contact_ref FOR UPDATE

-- name: contact
SELECT contact_ref, nonce, ciphertext, wrapped FROM intake.contact WHERE contact_ref = $1

-- name: contacts
SELECT contact_ref, nonce, ciphertext, wrapped FROM intake.contact WHERE contact_ref = ANY ($1::text[])

-- name: contact_keys
SELECT contact_ref, wrapped FROM intake.contact WHERE contact_ref = ANY ($1::text[]) AND wrapped IS NOT NULL

-- name: contacts_update
UPDATE intake.contact c
SET phone_hash = n.phone_hash, nonce = n.nonce, ciphertext = n.ciphertext, wrapped = n.wrapped, sequence = n.sequence,
    recorded = n.recorded
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::timestamptz[])
     AS n(contact_ref, person_hash, phone_hash, nonce, ciphertext, wrapped, sequence, recorded)
WHERE c.contact_ref = n.contact_ref

-- name: remarks_put
INSERT INTO intake.remark (code, sequence, nonce, ciphertext) SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[])

-- name: due_ticks
SELECT code FROM intake.dossier WHERE next_tick <= $1 ORDER BY next_tick LIMIT $2

-- name: due_oldest
SELECT min(next_tick) FROM intake.dossier WHERE next_tick <= clock_timestamp()

-- name: accepted
SELECT count(*) AS dossiers, coalesce(sum(sequence), 0) AS events FROM intake.dossier

-- name: contacts_by_phone
SELECT contact_ref FROM intake.contact WHERE phone_hash = $1 LIMIT 200

-- name: contacts_by_person_hash
SELECT contact_ref FROM intake.contact WHERE person_hash = $1

-- name: open_under_calendar
SELECT code FROM intake.dossier WHERE agency = ANY ($1::text[]) AND state IN (2, 4, 5, 6, 7) AND code > $2
ORDER BY code LIMIT $3

-- Lists. They are planned anew for each question (store.py), so that a filter that was not asked for costs nothing and the
-- others find their index.

-- name: listed_own
-- By code, of some agencies, copies too: each is read through its own indexes. After $2 and before $7; state $3, overdue $4, code
-- of the pattern $5.
SELECT DISTINCT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE d.agency = own.agency AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($4::boolean IS NOT TRUE OR (state IN (2, 4, 5, 6, 7) AND due_at < now()))
    AND ($5::text IS NULL OR code ~ $5) AND ($7::text IS NULL OR code < $7)
     ORDER BY code LIMIT $6)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($4::boolean IS NOT TRUE OR (state IN (2, 4, 5, 6, 7) AND due_at < now()))
    AND ($5::text IS NULL OR code ~ $5) AND ($7::text IS NULL OR code < $7)
     ORDER BY code LIMIT $6)) AS found
ORDER BY code LIMIT $6

-- name: listed_heads
-- Where the list of each of many agencies begins: the first code that `listed_own` would give for it.
SELECT own.agency, min(found.code) AS code FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    (SELECT code FROM intake.listed d
     WHERE d.agency = own.agency AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($5::text IS NULL OR code ~ $5)
     ORDER BY code LIMIT 1)
    UNION ALL
    (SELECT code FROM intake.listed d
     WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($5::text IS NULL OR code ~ $5)
     ORDER BY code LIMIT 1)) AS found
GROUP BY own.agency ORDER BY 2

-- name: listed_receiving
-- By code, of one receiving agency.
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
FROM intake.listed
WHERE agency = $1 AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($4::boolean IS NOT TRUE OR (state IN (2, 4, 5, 6, 7) AND due_at < now()))
    AND ($5::text IS NULL OR code ~ $5)
ORDER BY code LIMIT $6

-- name: listed_between
-- By code, what some agencies $7 decide of what another, $1, received.
SELECT found.* FROM unnest($7::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
    FROM intake.listed d
    WHERE d.deciding_agency = own.agency AND d.agency = $1 AND d.deciding_agency <> d.agency
        AND code > $2 AND ($3::smallint IS NULL OR state = $3)
        AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
        AND ($4::boolean IS NOT TRUE OR state IN (2, 4, 5, 6, 7))
        AND ($5::text IS NULL OR code ~ $5)
    ORDER BY code LIMIT $6) AS found
ORDER BY code LIMIT $6

-- name: listed_site
-- By code, of the whole site or many agencies: read in the order of their codes, or of those of one state.
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
FROM intake.listed
WHERE ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1)) AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($5::text IS NULL OR code ~ $5)
ORDER BY code LIMIT $6

-- name: listed_late
-- By code, what is overdue on the whole site or for many agencies ($1), or among what one portal sent ($6; to the agency $7);
-- after $2; state $3, code of the pattern $4. What has been raised (a copy's home has said so) lies in an index of its own by state; what
-- is due this moment has its tick to come.
SELECT found.* FROM (
    (SELECT raised.* FROM unnest(CASE WHEN $3::smallint IS NULL THEN ARRAY[2, 4, 5, 6, 7] ELSE ARRAY[$3] END) AS open (state)
     CROSS JOIN LATERAL (
        SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL AS home
        FROM intake.dossier d
        WHERE d.state = open.state AND overdue_from IS NOT NULL AND next_tick IS NULL AND overdue_from < now() AND code > $2
            AND ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1)) AND ($4::text IS NULL OR code ~ $4)
            AND ($6::text IS NULL OR sender = $6) AND ($7::text IS NULL OR agency = $7)
        ORDER BY code LIMIT $5) AS raised
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL AS home
     FROM intake.dossier
     WHERE next_tick <= now() AND overdue_from < now() AND code > $2 AND ($3::smallint IS NULL OR state = $3)
        AND ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1)) AND ($4::text IS NULL OR code ~ $4)
        AND ($6::text IS NULL OR sender = $6) AND ($7::text IS NULL OR agency = $7)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT raised.* FROM unnest(CASE WHEN $3::smallint IS NULL THEN ARRAY[2, 4, 5, 6, 7] ELSE ARRAY[$3] END) AS open (state)
     CROSS JOIN LATERAL (
        SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
        FROM intake.copy c
        WHERE $6::text IS NULL AND c.state = open.state AND late AND overdue_from < now() AND code > $2
            AND ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1)) AND ($4::text IS NULL OR code ~ $4)
        ORDER BY code LIMIT $5) AS raised
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.copy
     WHERE $6::text IS NULL AND NOT late AND overdue_from < now() AND code > $2 AND ($3::smallint IS NULL OR state = $3)
        AND ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1)) AND ($4::text IS NULL OR code ~ $4)
     ORDER BY code LIMIT $5)) AS found
ORDER BY code LIMIT $5

-- name: listed_sent
-- By code, what one portal sent.
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
FROM intake.dossier
WHERE sender = $1 AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($5::text IS NULL OR code ~ $5) AND ($7::text IS NULL OR agency = $7)
ORDER BY code LIMIT $6

-- name: begun_late
-- By code, what is overdue and lies in some ranges of codes ($1 to $2) or has the number $9: on the whole site or for many
-- agencies ($6), of what a portal sent ($7), of a receiving agency ($8). After $3; state $4. As in listed_late.
SELECT DISTINCT found.* FROM (
    (SELECT raised.* FROM unnest($1::text[], $2::text[]) AS begun (low, high)
     CROSS JOIN unnest(CASE WHEN $4::smallint IS NULL THEN ARRAY[2, 4, 5, 6, 7] ELSE ARRAY[$4] END) AS open (state)
     CROSS JOIN LATERAL (
        SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL AS home
        FROM intake.dossier d
        WHERE d.state = open.state AND overdue_from IS NOT NULL AND next_tick IS NULL AND overdue_from < now()
            AND code >= begun.low AND code < begun.high AND code > $3 AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6)) AND ($7::text IS NULL OR sender = $7)
            AND ($8::text IS NULL OR agency = $8)
        ORDER BY code LIMIT $5) AS raised)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL AS home
     FROM intake.dossier
     WHERE split_part(code, '-', 3) = $9::text AND overdue_from IS NOT NULL AND next_tick IS NULL AND overdue_from < now()
            AND code > $3 AND ($4::smallint IS NULL OR state = $4) AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6)) AND ($7::text IS NULL OR sender = $7)
            AND ($8::text IS NULL OR agency = $8)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, NULL AS home
     FROM intake.dossier
     WHERE next_tick <= now() AND overdue_from < now() AND code > $3 AND ($4::smallint IS NULL OR state = $4)
            AND (EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS begun (low, high) WHERE code >= low AND code < high)
            OR split_part(code, '-', 3) = $9)
            AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6)) AND ($7::text IS NULL OR sender = $7)
            AND ($8::text IS NULL OR agency = $8)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT raised.* FROM unnest($1::text[], $2::text[]) AS begun (low, high)
     CROSS JOIN unnest(CASE WHEN $4::smallint IS NULL THEN ARRAY[2, 4, 5, 6, 7] ELSE ARRAY[$4] END) AS open (state)
     CROSS JOIN LATERAL (
        SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
        FROM intake.copy c
        WHERE c.state = open.state AND late AND overdue_from < now()
            AND code >= begun.low AND code < begun.high AND code > $3 AND $7::text IS NULL AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6))
            AND ($8::text IS NULL OR agency = $8)
        ORDER BY code LIMIT $5) AS raised)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.copy
     WHERE split_part(code, '-', 3) = $9 AND late AND overdue_from < now()
            AND code > $3 AND ($4::smallint IS NULL OR state = $4) AND $7::text IS NULL AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6))
            AND ($8::text IS NULL OR agency = $8)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.copy
     WHERE NOT late AND overdue_from < now() AND code > $3 AND ($4::smallint IS NULL OR state = $4)
            AND (EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS begun (low, high) WHERE code >= low AND code < high)
            OR split_part(code, '-', 3) = $9)
            AND $7::text IS NULL AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6))
            AND ($8::text IS NULL OR agency = $8)
     ORDER BY code LIMIT $5)) AS found
ORDER BY code LIMIT $5

-- name: begun_site
-- By code, those that lie in some ranges of codes ($1 to $2), as far as the scope $7 and the receiving agency $8 go. After $3.
SELECT DISTINCT found.* FROM unnest($1::text[], $2::text[]) AS begun (low, high) CROSS JOIN LATERAL (
    SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
    FROM intake.listed d
    WHERE code >= begun.low AND code < begun.high AND code > $3 AND ($4::smallint IS NULL OR state = $4)
        AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5)
        AND ($7::text[] IS NULL OR agency = ANY ($7) OR deciding_agency = ANY ($7)) AND ($8::text IS NULL OR agency = $8)
    ORDER BY code LIMIT $6) AS found
ORDER BY code LIMIT $6

-- name: begun_own
-- The same for a few agencies $7, each through its own indexes; $8: only what they received.
SELECT DISTINCT found.* FROM unnest($7::text[]) AS own (agency) CROSS JOIN unnest($1::text[], $2::text[]) AS begun (low, high)
CROSS JOIN LATERAL (
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE d.agency = own.agency AND code >= begun.low AND code < begun.high AND code > $3 AND ($4::smallint IS NULL OR state = $4)
        AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5)
     ORDER BY code LIMIT $6)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE NOT $8::boolean AND d.deciding_agency = own.agency AND d.deciding_agency <> d.agency
        AND code >= begun.low AND code < begun.high AND code > $3 AND ($4::smallint IS NULL OR state = $4)
        AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5)
     ORDER BY code LIMIT $6)) AS found
ORDER BY code LIMIT $6

-- name: begun_between
-- The same, and what has the number $9, of what some agencies $7 decide of what another, $8, received. Most of them decide
-- nothing of it, and are not looked at for each range.
SELECT DISTINCT found.* FROM unnest($7::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT FROM intake.listed d WHERE d.deciding_agency = own.agency AND d.agency = $8 AND d.deciding_agency <> d.agency
    ORDER BY code LIMIT 1) AS any_of
CROSS JOIN LATERAL (
    (SELECT begun.* FROM unnest($1::text[], $2::text[]) AS b (low, high) CROSS JOIN LATERAL (
        SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
        FROM intake.listed d
        WHERE d.deciding_agency = own.agency AND d.agency = $8 AND d.deciding_agency <> d.agency
            AND code >= b.low AND code < b.high AND code > $3 AND ($4::smallint IS NULL OR state = $4)
            AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5)
        ORDER BY code LIMIT $6) AS begun)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE d.deciding_agency = own.agency AND d.agency = $8 AND d.deciding_agency <> d.agency
        AND split_part(code, '-', 3) = $9 AND code > $3 AND ($4::smallint IS NULL OR state = $4)
        AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5)
     ORDER BY code LIMIT $6)) AS found
ORDER BY code LIMIT $6

-- name: begun_sent
-- The same for what one portal sent ($7), to one agency ($8).
SELECT DISTINCT found.* FROM unnest($1::text[], $2::text[]) AS begun (low, high) CROSS JOIN LATERAL (
    SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
    FROM intake.dossier d
    WHERE sender = $7 AND code >= begun.low AND code < begun.high AND code > $3 AND ($4::smallint IS NULL OR state = $4)
        AND ($5::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $5) AND ($8::text IS NULL OR agency = $8)
    ORDER BY code LIMIT $6) AS found
ORDER BY code LIMIT $6

-- name: numbered_site
-- By code, those with the number $1, as far as the scope $6 and the receiving agency $7 go. After $2.
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
FROM intake.listed
WHERE split_part(code, '-', 3) = $1 AND code > $2 AND ($3::smallint IS NULL OR state = $3)
    AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
    AND ($6::text[] IS NULL OR agency = ANY ($6) OR deciding_agency = ANY ($6)) AND ($7::text IS NULL OR agency = $7)
ORDER BY code LIMIT $5

-- name: numbered_own
-- The same for a few agencies $6: of their own codes ($7 to $8 for each), and of what they decide for others ($9: not these).
SELECT DISTINCT found.* FROM unnest($6::text[], $7::text[], $8::text[]) AS own (agency, low, high) CROSS JOIN LATERAL (
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE split_part(code, '-', 3) = $1 AND code >= own.low AND code < own.high AND d.agency = own.agency AND code > $2
        AND ($3::smallint IS NULL OR state = $3)
        AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, home
     FROM intake.listed d
     WHERE NOT $9::boolean AND d.deciding_agency = own.agency AND d.deciding_agency <> d.agency
        AND split_part(code, '-', 3) = $1 AND code > $2 AND ($3::smallint IS NULL OR state = $3)
        AND ($4::boolean IS NULL OR (overdue_from IS NOT NULL AND overdue_from < now()) = $4)
     ORDER BY code LIMIT $5)) AS found
ORDER BY code LIMIT $5

-- name: work
-- The open dossiers of some agencies by due date: after ($2, $3) and before $4; $5: only those whose clock runs. Of each
-- agency $6, of all $7.
SELECT DISTINCT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
     FROM intake.dossier d
     WHERE d.agency = own.agency AND state IN (2, 4, 5, 6, 7) AND (due_at, code) > ($2, $3) AND due_at < $4
         AND (NOT $5::boolean OR overdue_from IS NOT NULL)
     ORDER BY due_at, code LIMIT $6)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
     FROM intake.dossier d
     WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND state IN (2, 4, 5, 6, 7) AND (due_at, code) > ($2, $3) AND due_at < $4
         AND (NOT $5::boolean OR overdue_from IS NOT NULL)
     ORDER BY due_at, code LIMIT $6)) AS found
ORDER BY due_at, code LIMIT $7

-- name: work_counted
-- How many of them there are, up to $5: those decided for others are counted where nobody of $1 has received them.
SELECT count(*) FROM (SELECT FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT FROM intake.dossier d
    WHERE d.agency = own.agency AND state IN (2, 4, 5, 6, 7) AND due_at >= $2 AND due_at < $3
        AND (NOT $4::boolean OR overdue_from IS NOT NULL)
    UNION ALL
    SELECT FROM intake.dossier d
    WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND d.agency <> ALL ($1::text[])
        AND state IN (2, 4, 5, 6, 7) AND due_at >= $2 AND due_at < $3 AND (NOT $4::boolean OR overdue_from IS NOT NULL)) AS found
    LIMIT $5) AS counted

-- name: waiting
-- The dossiers of some agencies in a state that is not open to the clock (1, 9), by code, from $3 on up to $4. Of each agency
-- $5, of all $6.
SELECT DISTINCT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
     FROM intake.dossier d
     WHERE d.agency = own.agency AND state = $2::smallint AND code > $3 AND ($4::text IS NULL OR code <= $4)
     ORDER BY code LIMIT $5)
    UNION ALL
    (SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
     FROM intake.dossier d
     WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND state = $2::smallint AND code > $3
         AND ($4::text IS NULL OR code <= $4)
     ORDER BY code LIMIT $5)) AS found
ORDER BY code LIMIT $6

-- name: waiting_counted
-- How many of them there are, up to $3.
SELECT count(*) FROM (SELECT FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT FROM intake.dossier d WHERE d.agency = own.agency AND state = $2::smallint
    UNION ALL
    SELECT FROM intake.dossier d
    WHERE d.deciding_agency = own.agency AND d.deciding_agency <> d.agency AND d.agency <> ALL ($1::text[])
        AND state = $2::smallint) AS found
    LIMIT $3) AS counted

-- name: register
-- What some agencies received after ($2, $3) and before $4, in the order of receipt.
SELECT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence, body
    FROM intake.dossier d
    WHERE d.agency = own.agency AND (received_at, code) > ($2, $3) AND received_at < $4
    ORDER BY received_at, code LIMIT $5) AS found
ORDER BY received_at, code LIMIT $5

-- name: found
SELECT code, state, procedure, agency, deciding_agency, received_at, due_at, paused, overdue_from, sequence
FROM intake.dossier
WHERE contact_ref = ANY ($1::text[]) AND code > $2
  AND ($3::text[] IS NULL OR agency = ANY ($3) OR deciding_agency = ANY ($3))
  AND ($4::text IS NULL OR sender = $4)
ORDER BY code LIMIT $5

-- The tracking page's throttle and petitions.

-- name: guesses_left
-- For how many seconds yet the code's page is closed; null: it is open.
SELECT extract(epoch FROM since + $2::interval - clock_timestamp())::float8 FROM intake.guess
WHERE code = $1 AND wrong >= $3 AND since > clock_timestamp() - $2::interval

-- name: guess_wrong
-- One more wrong pin for this code, whether it exists or not; what is long past is forgotten on the way.
WITH past AS (
    DELETE FROM intake.guess WHERE code IN (
        SELECT code FROM intake.guess WHERE since < clock_timestamp() - $2::interval AND code <> $1
        ORDER BY since LIMIT 10 FOR UPDATE SKIP LOCKED))
INSERT INTO intake.guess AS g (code, wrong, since) VALUES ($1, 1, clock_timestamp())
ON CONFLICT (code) DO UPDATE SET
    wrong = CASE WHEN g.since > excluded.since - $2::interval THEN g.wrong + 1 ELSE 1 END,
    since = CASE WHEN g.since > excluded.since - $2::interval THEN g.since ELSE excluded.since END
RETURNING wrong

-- name: petition_put
INSERT INTO intake.petition (id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, nonce, ciphertext,
                             wrapped, answer_nonce, answer_ciphertext, sequence, recorded)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET agency = excluded.agency, state = excluded.state, answered_at = excluded.answered_at,
    rating = excluded.rating, answer_nonce = excluded.answer_nonce, answer_ciphertext = excluded.answer_ciphertext,
    sequence = excluded.sequence, recorded = excluded.recorded

-- name: petition
SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, nonce, ciphertext, wrapped,
       answer_nonce, answer_ciphertext, sequence, recorded
FROM intake.petition WHERE id = $1

-- name: petition_for_update
SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, nonce, ciphertext, wrapped,
       answer_nonce, answer_ciphertext, sequence, recorded
FROM intake.petition WHERE id = $1 FOR UPDATE

-- name: petitions_of
-- By id, of some agencies: each is read through its own index. After $2, up to $4; state $3. Of each agency $5, of all $6.
SELECT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, sequence, recorded
    FROM intake.petition p
    WHERE p.agency = own.agency AND ($2::uuid IS NULL OR id > $2) AND ($3::text IS NULL OR state = $3)
        AND ($4::uuid IS NULL OR id <= $4)
    ORDER BY id LIMIT $5) AS found
ORDER BY id LIMIT $6

-- name: petitions_sent
-- By id, what one portal sent. After $2; state $3; $5: to these agencies.
SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, sequence, recorded
FROM intake.petition
WHERE sender = $1 AND ($2::uuid IS NULL OR id > $2) AND ($3::text IS NULL OR state = $3)
  AND ($5::text[] IS NULL OR agency = ANY ($5))
ORDER BY id LIMIT $4

-- name: petitions_all
-- By id, of the whole site. After $1; state $2.
SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, sequence, recorded
FROM intake.petition
WHERE ($1::uuid IS NULL OR id > $1) AND ($2::text IS NULL OR state = $2)
ORDER BY id LIMIT $3

-- name: petitions_due
-- The unanswered ones of some agencies by due date: after ($2, $3) and before $4. Of each agency $5, of all $6.
SELECT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, sequence, recorded
    FROM intake.petition p
    WHERE p.agency = own.agency AND state = 'filed' AND (due_at, id) > ($2, $3::uuid) AND due_at < $4
    ORDER BY due_at, id LIMIT $5) AS found
ORDER BY due_at, id LIMIT $6

-- name: petitions_due_counted
-- How many of them there are, up to $4.
SELECT count(*) FROM (SELECT FROM unnest($1::text[]) AS own (agency) JOIN intake.petition p USING (agency)
    WHERE state = 'filed' AND due_at >= $2 AND due_at < $3 LIMIT $4) AS counted

-- name: petitions_answered
-- The answered ones of some agencies, the newest answer first: before ($2, $3), not before $4. Of each agency $5, of all $6.
SELECT found.* FROM unnest($1::text[]) AS own (agency) CROSS JOIN LATERAL (
    SELECT id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, sequence, recorded
    FROM intake.petition p
    WHERE p.agency = own.agency AND answered_at IS NOT NULL AND (answered_at, id) < ($2, $3::uuid) AND answered_at >= $4
    ORDER BY answered_at DESC, id DESC LIMIT $5) AS found
ORDER BY answered_at DESC, id DESC LIMIT $6

-- name: petitions_answered_counted
-- How many of them there are, up to $2.
SELECT count(*) FROM (SELECT FROM unnest($1::text[]) AS own (agency) JOIN intake.petition p USING (agency)
    WHERE answered_at IS NOT NULL LIMIT $2) AS counted

-- Erasing a person.

-- name: contact_lock
SELECT sequence, ciphertext IS NULL AS erased FROM intake.contact WHERE contact_ref = $1 FOR UPDATE

-- name: contact_erase
-- Data, key and the hashes that found the person; hashes of personal data are personal data.
UPDATE intake.contact SET nonce = NULL, ciphertext = NULL, wrapped = NULL, person_hash = NULL, phone_hash = NULL,
    sequence = $2, recorded = $3
WHERE contact_ref = $1

-- name: remarks_forget
DELETE FROM intake.remark WHERE code IN (SELECT code FROM intake.dossier WHERE contact_ref = $1)

-- name: erasure_put
INSERT INTO intake.erasure (contact_ref, at, who) VALUES ($1, $2, $3) ON CONFLICT (contact_ref) DO NOTHING
RETURNING contact_ref

-- name: people_kept
-- Those of these people who are not given back: erased, or changed here since the restoration.
SELECT contact_ref FROM intake.erasure WHERE contact_ref = ANY ($1::text[])
UNION
SELECT contact_ref FROM intake.contact
WHERE contact_ref = ANY ($1::text[]) AND (ciphertext IS NULL OR recorded > (SELECT max(at) FROM intake.restored))
  AND NOT EXISTS (SELECT FROM intake.missing_person m WHERE m.contact_ref = contact.contact_ref AND given)

-- name: missing_put
INSERT INTO intake.missing_person (contact_ref, since)
SELECT DISTINCT ref, $2::timestamptz FROM unnest($1::text[]) AS w(ref)
WHERE NOT EXISTS (SELECT FROM intake.contact WHERE contact_ref = ref)
  AND NOT EXISTS (SELECT FROM intake.erasure WHERE contact_ref = ref)
ON CONFLICT (contact_ref) DO NOTHING

-- name: missing_given
INSERT INTO intake.missing_person (contact_ref, since, given) SELECT ref, $2, true FROM unnest($1::text[]) AS w(ref)
ON CONFLICT (contact_ref) DO UPDATE SET given = true

-- name: missing_whole
DELETE FROM intake.missing_person WHERE given

-- name: missing_forget
DELETE FROM intake.missing_person WHERE contact_ref = ANY ($1::text[])

-- name: missing
SELECT contact_ref FROM intake.missing_person WHERE contact_ref = $1 AND NOT given FOR UPDATE

-- name: missing_counted
SELECT count(*) FROM intake.missing_person m JOIN intake.dossier d USING (contact_ref)
WHERE NOT m.given AND d.agency = ANY ($1::text[])

-- name: missing_listed
SELECT d.code, d.body FROM intake.missing_person m JOIN intake.dossier d USING (contact_ref)
WHERE NOT m.given AND d.agency = ANY ($1::text[]) ORDER BY d.code LIMIT $2

-- name: erasure
SELECT e.at, coalesce(c.sequence, 0) AS sequence, ARRAY(SELECT code FROM intake.dossier WHERE contact_ref = $1 ORDER BY code) AS dossiers
FROM intake.erasure e LEFT JOIN intake.contact c USING (contact_ref) WHERE e.contact_ref = $1

-- name: erased_since
SELECT e.contact_ref, e.at, e.who, ARRAY(SELECT code FROM intake.dossier d WHERE d.contact_ref = e.contact_ref ORDER BY code)
       AS dossiers
FROM intake.erasure e WHERE e.at > $1 ORDER BY e.at, e.contact_ref

-- name: sealed_of
-- The people behind dossiers, as they lie here: sealed.
SELECT d.code, c.contact_ref, c.nonce, c.ciphertext, c.wrapped
FROM intake.dossier d JOIN intake.contact c USING (contact_ref)
WHERE d.code = ANY ($1::text[]) AND c.wrapped IS NOT NULL

-- name: erasures
SELECT contact_ref, at, who FROM intake.erasure ORDER BY at, contact_ref

-- The days' seals.

-- name: seal_lock
SELECT pg_try_advisory_xact_lock($1)

-- name: first_day
SELECT (recorded AT TIME ZONE 'Asia/Ho_Chi_Minh')::date FROM intake.event WHERE aggregatetype = 'dossier'
ORDER BY position LIMIT 1

-- name: seal_put
INSERT INTO intake.seal (day, dossiers, events, root, previous, signed_at, key_id, signature)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7)

-- name: seal
SELECT day, dossiers, events, root, previous, key_id, signature FROM intake.seal WHERE day = $1

-- name: seal_last
SELECT day, dossiers, events, root, previous, key_id, signature FROM intake.seal ORDER BY day DESC LIMIT 1

-- name: seal_gone
-- Whether there are seals before and after this day.
SELECT coalesce(min(day) < $1 AND max(day) > $1, false) FROM intake.seal

-- The portals that are kept up to date.

-- name: portal_known
-- A new portal is told of what happens from now on; what was before is sent by `lienthong portal resend`.
INSERT INTO intake.portal (name, since) VALUES ($1, clock_timestamp() - interval '1 minute') ON CONFLICT (name) DO NOTHING

-- name: portal_take
UPDATE intake.portal SET lease = clock_timestamp() + $2::interval
WHERE name = $1 AND (lease IS NULL OR lease < clock_timestamp()) AND (next_at IS NULL OR next_at <= clock_timestamp())
RETURNING failures

-- name: portal_at
SELECT since, after FROM intake.portal WHERE name = $1 FOR UPDATE

-- name: portal_lease
UPDATE intake.portal SET lease = clock_timestamp() + $2::interval WHERE name = $1

-- name: portal_up
UPDATE intake.portal SET failures = 0, down = NULL, error = NULL, next_at = NULL, lease = NULL WHERE name = $1

-- name: portal_down
UPDATE intake.portal SET failures = failures + 1, down = coalesce(down, clock_timestamp()), error = $2,
    next_at = clock_timestamp() + $3::interval, lease = NULL
WHERE name = $1

-- name: portal_moved
-- What moved since the last look, and whether a portal is told of it: history is figures only, and what is confidential
-- stays here.
SELECT code, sequence, recorded,
       agency = ANY ($4::text[]) AND body::json ->> 'mode' = 'live' AND NOT (body::json ->> 'confidential')::boolean AS told
FROM intake.dossier
WHERE (recorded, code) > ($1, $2) AND recorded < $3
ORDER BY recorded, code LIMIT $5

-- name: portal_move
UPDATE intake.portal SET since = $2, after = $3 WHERE name = $1

-- name: portal_note
INSERT INTO intake.portal_dossier AS d (portal, code, wanted, state)
SELECT $1, code, sequence, 'waiting' FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS n(code, sequence, line) ORDER BY line
ON CONFLICT (portal, code) DO UPDATE SET wanted = excluded.wanted, state = 'waiting', reason = NULL,
    changed = clock_timestamp()
WHERE d.wanted < excluded.wanted

-- name: portal_due
SELECT code, wanted, sent FROM intake.portal_dossier WHERE portal = $1 AND state = 'waiting' ORDER BY number LIMIT $2

-- name: portal_sent
-- It may have moved on meanwhile: then it waits again.
UPDATE intake.portal_dossier SET sent = $3, reason = NULL, changed = clock_timestamp(),
    state = CASE WHEN wanted > $3 THEN 'waiting' ELSE 'sent' END
WHERE portal = $1 AND code = $2

-- name: portal_refused
UPDATE intake.portal_dossier SET reason = $4, changed = clock_timestamp(),
    state = CASE WHEN wanted > $3 THEN 'waiting' ELSE 'refused' END
WHERE portal = $1 AND code = $2

-- name: portal_status
-- Each number up to $2: more is not counted.
SELECT p.down, p.error,
       (SELECT count(*) FROM (SELECT FROM intake.portal_dossier WHERE portal = $1 AND state = 'waiting' LIMIT $2) d) AS waiting,
       (SELECT count(*) FROM (SELECT FROM intake.portal_dossier WHERE portal = $1 AND state = 'sent' LIMIT $2) d) AS sent,
       (SELECT count(*) FROM (SELECT FROM intake.portal_dossier WHERE portal = $1 AND state = 'refused' LIMIT $2) d) AS refused,
       (SELECT changed FROM intake.portal_dossier WHERE portal = $1 AND state = 'waiting' ORDER BY changed LIMIT 1) AS oldest
FROM intake.portal p WHERE p.name = $1

-- name: portal_refusals
SELECT code, reason, changed FROM intake.portal_dossier WHERE portal = $1 AND state = 'refused' ORDER BY code LIMIT $2

-- name: portal_again_refused
UPDATE intake.portal_dossier SET state = 'waiting', reason = NULL, sent = 0, changed = clock_timestamp()
WHERE portal = $1 AND state = 'refused'

-- name: portal_again
INSERT INTO intake.portal_dossier AS d (portal, code, wanted, state)
SELECT $1, code, sequence, 'waiting' FROM intake.dossier
WHERE ($2::text IS NULL OR code = $2) AND ($3::timestamptz IS NULL OR recorded >= $3) AND agency = ANY ($4::text[])
  AND NOT (body::json ->> 'confidential')::boolean
ON CONFLICT (portal, code) DO UPDATE SET state = 'waiting', reason = NULL, sent = 0, wanted = excluded.wanted,
    changed = clock_timestamp()

-- Backup and restoration.

-- name: dossiers_count
SELECT count(*) FROM intake.dossier

-- name: numbers_jump
-- On every local day from the backup to now, for every agency that has ever issued a number.
INSERT INTO intake.counter AS c (agency, day, last)
SELECT a.agency, d::date, $3::int
FROM (SELECT DISTINCT agency FROM intake.counter) a,
     generate_series(($1::timestamptz AT TIME ZONE 'Asia/Ho_Chi_Minh')::date,
                     ($2::timestamptz AT TIME ZONE 'Asia/Ho_Chi_Minh')::date, interval '1 day') d
ON CONFLICT (agency, day) DO UPDATE SET last = c.last + excluded.last

-- name: restored_put
INSERT INTO intake.restored (at, taken, whole) VALUES ($1, $2, $3)

-- name: restored_whole
UPDATE intake.restored SET whole = true WHERE NOT whole

-- name: restored_waits
SELECT EXISTS (SELECT FROM intake.restored WHERE NOT whole)

-- name: numbers_reach
-- The numbers of these codes have been issued.
INSERT INTO intake.counter AS c (agency, day, last)
SELECT agency, day, max(number) FROM unnest($1::text[], $2::date[], $3::int[]) AS n(agency, day, number) GROUP BY 1, 2
ON CONFLICT (agency, day) DO UPDATE SET last = greatest(c.last, excluded.last)

-- Attachments by reference.

-- name: attachments_begin
INSERT INTO intake.attachment_read (since, after) VALUES (clock_timestamp() - interval '1 minute', '')
ON CONFLICT (one) DO NOTHING

-- name: attachments_at
SELECT since, after FROM intake.attachment_read FOR UPDATE

-- name: moved_since
SELECT code, recorded FROM intake.dossier WHERE (recorded, code) > ($1, $2) AND recorded < $3
ORDER BY recorded, code LIMIT $4

-- name: attachments_move
UPDATE intake.attachment_read SET since = $1, after = $2

-- name: attachments_note
INSERT INTO intake.attachment AS a (code, ref, name, digest, state, next_at)
SELECT code, ref, name, digest, 'waiting', clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n(code, ref, name, digest)
ON CONFLICT (code, name, ref) DO UPDATE SET digest = excluded.digest, state = 'waiting', next_at = excluded.next_at
WHERE a.digest IS DISTINCT FROM excluded.digest

-- name: attachments_due
SELECT code, name, ref, digest FROM intake.attachment WHERE state = 'waiting' AND next_at <= clock_timestamp()
ORDER BY next_at LIMIT $1

-- name: attachment_later
UPDATE intake.attachment SET next_at = clock_timestamp() + $4::interval WHERE code = $1 AND name = $2 AND ref = $3

-- name: attachment_checked
UPDATE intake.attachment SET state = $4, size = $5, sha256 = $6, checked = clock_timestamp(), next_at = NULL
WHERE code = $1 AND name = $2 AND ref = $3

-- name: attachments_of
SELECT name, ref, digest, state, size, sha256 FROM intake.attachment WHERE code = $1 ORDER BY name, ref
