-- The site's directory (agencies, procedures, calendars, templates, providers): one document a version, append only.
-- Every service of the site reads it; only a load writes it.
CREATE TABLE document (
    version integer PRIMARY KEY,
    content text NOT NULL,
    loaded  timestamptz NOT NULL DEFAULT now(),
    who     text NOT NULL
);
