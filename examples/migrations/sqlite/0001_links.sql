CREATE TABLE links (
    code       TEXT    NOT NULL PRIMARY KEY,
    url        TEXT    NOT NULL,
    hits       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL -- milliseconds since 1970-01-01 UTC
) STRICT;

CREATE INDEX links_newest ON links (created_at DESC);
