-- `document` is JSON: what is only read back whole. What is looked up or counted has a column.
CREATE TABLE functions (
    region      TEXT NOT NULL,
    name        TEXT NOT NULL,
    version     TEXT NOT NULL,
    revision    TEXT NOT NULL,
    code_sha256 TEXT NOT NULL,
    document    TEXT NOT NULL,
    PRIMARY KEY (region, name, version)
) WITHOUT ROWID;

CREATE TABLE tags (
    region TEXT NOT NULL,
    name   TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (region, name, key)
) WITHOUT ROWID;

CREATE TABLE access_keys (
    number  INTEGER PRIMARY KEY,
    key_id  TEXT NOT NULL UNIQUE,
    secret  TEXT NOT NULL
);

CREATE TABLE tokens (
    sha256 TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
