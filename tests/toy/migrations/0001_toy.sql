CREATE TABLE thing (
    key      text PRIMARY KEY,
    sequence integer NOT NULL,
    recorded timestamptz NOT NULL
);
CREATE VIEW head AS SELECT 'lienthong.dossier.v1'::text AS topic, key, sequence, recorded FROM thing;

CREATE TABLE effect (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic    text NOT NULL,
    key      text NOT NULL,
    sequence smallint NOT NULL,
    event    uuid,
    type     text NOT NULL,
    batch    bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
);
