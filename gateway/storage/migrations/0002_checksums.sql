-- Every row says what it was when it was written: SQLite itself does not notice a flipped bit in a value. `row_checksum` is
-- ours (gateway/storage/sqlite.py).
ALTER TABLE functions ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE functions SET checksum = row_checksum(region, name, version, revision, code_sha256, document);

ALTER TABLE tags ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE tags SET checksum = row_checksum(region, name, key, value);

ALTER TABLE access_keys ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE access_keys SET checksum = row_checksum(key_id, secret);

ALTER TABLE tokens ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE tokens SET checksum = row_checksum(sha256);

ALTER TABLE settings ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
UPDATE settings SET checksum = row_checksum(name, value);

-- How many transactions this database has seen: of two databases the one with more knows more.
CREATE TABLE changes (number INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
