-- Urgent notices, costs, people who want no SMS, tracking of orders, and letters that came back.

-- What does not wait for the morning, for the budget, or behind what is not urgent. `cost`: đồng, of all its parts.
ALTER TABLE notice ADD COLUMN urgent boolean NOT NULL DEFAULT false;
ALTER TABLE notice ADD COLUMN cost bigint NOT NULL DEFAULT 0;
CREATE INDEX notice_due_urgent ON notice (id) WHERE due AND urgent;
CREATE INDEX notice_due_held ON notice (id) WHERE due AND state = 'held';
CREATE INDEX notice_over_budget ON notice (id) WHERE reason = 'over-budget';

-- A number is kept as a keyed hash alone: it can be asked for, not read.
CREATE TABLE opt_out (
    phone_hash text PRIMARY KEY,
    since      timestamptz NOT NULL,
    who        text NOT NULL
);

-- `track_at`: when the carrier is asked next; `handled_at`: when the desk dealt with what came back.
ALTER TABLE postal_order ADD COLUMN track_at timestamptz;
ALTER TABLE postal_order ADD COLUMN polls integer NOT NULL DEFAULT 0;
ALTER TABLE postal_order ADD COLUMN handled_at timestamptz;
ALTER TABLE postal_order ADD COLUMN handled_by text;
ALTER TABLE postal_order ADD COLUMN handled_note text;
CREATE INDEX postal_order_track ON postal_order (track_at) WHERE track_at IS NOT NULL;
CREATE INDEX postal_order_task ON postal_order (id) WHERE state = 'returned' AND handled_at IS NULL;
