-- When the newest event that came from each lower site was recorded there: what an upper site last heard.
CREATE TABLE site_word (
    site     text PRIMARY KEY,
    recorded timestamptz NOT NULL
);
