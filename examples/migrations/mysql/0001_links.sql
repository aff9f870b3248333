-- The default collations fold case, and codes differ by case alone.
CREATE TABLE links (
    code       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    url        TEXT   NOT NULL,
    hits       BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL, -- milliseconds since 1970-01-01 UTC
    INDEX links_newest (created_at DESC)
);
