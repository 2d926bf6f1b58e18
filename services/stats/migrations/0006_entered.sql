-- Counts of the index that no event of ours tells (publication, synchronisation, population data), as an agency entered them
-- for a period. Nothing is overwritten: the newest stands, and what was known earlier can be asked for.
CREATE TABLE entered (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agency      text NOT NULL,
    metric      text NOT NULL,
    from_day    date NOT NULL,
    to_day      date NOT NULL CHECK (to_day >= from_day),
    numerator   bigint CHECK (numerator BETWEEN 0 AND denominator),   -- both null: what was entered is taken back
    denominator bigint,
    who         text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((numerator IS NULL) = (denominator IS NULL))
);
CREATE INDEX entered_period ON entered (agency, from_day, to_day, metric);
