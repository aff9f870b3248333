CREATE TABLE links (
    code       VARCHAR(16) NOT NULL PRIMARY KEY,
    url        TEXT        NOT NULL,
    hits       BIGINT      NOT NULL DEFAULT 0,
    created_at BIGINT      NOT NULL -- milliseconds since 1970-01-01 UTC
);

CREATE INDEX links_newest ON links (created_at DESC);
