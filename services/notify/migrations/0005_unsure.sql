-- Whether a carrier may have an order although its answer never came: it stays with that carrier. Null: no.
ALTER TABLE postal_order ADD COLUMN unsure boolean;
