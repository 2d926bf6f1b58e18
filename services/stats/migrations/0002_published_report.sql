-- Reports as they were published: frozen copies with a number. A later restatement of the period points at them.
CREATE TABLE published_report (
    number    text PRIMARY KEY,             -- II.06a-H55.242-2026-Q4-1: report, agency, period, edition
    report    text NOT NULL,
    agency    text NOT NULL,
    agencies  text[] NOT NULL,              -- whose dossiers it counts
    by        text NOT NULL,
    rows      text NOT NULL,
    from_day  date NOT NULL,
    to_day    date NOT NULL,
    judged    timestamptz NOT NULL,
    known     timestamptz NOT NULL,
    published timestamptz NOT NULL,
    publisher text NOT NULL,                -- the subject of the token, or "schedule"
    figures   jsonb NOT NULL
);
CREATE INDEX published_report_agency ON published_report (agency, published);
CREATE INDEX published_report_period ON published_report (from_day, to_day);
