-- Everything of the Lambda API that is neither a function nor a tag: aliases, policies, layers and so on. `owner` is what a
-- resource ends with ("function:hello"); `document` is JSON.
CREATE TABLE resources (
    region   TEXT NOT NULL,
    owner    TEXT NOT NULL,
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    document TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (region, owner, kind, name)
) WITHOUT ROWID;
