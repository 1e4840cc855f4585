-- Asynchronous events: what was acknowledged and has not ended. An event's row is written once; what changes has a table of its
-- own, so that a retry of a large event does not write the event again.
CREATE TABLE events (
    number      INTEGER PRIMARY KEY,  -- in the order of acceptance
    request_id  TEXT NOT NULL,
    head        TEXT NOT NULL,        -- JSON: whose event it is; see gateway/storage/events.py
    accepted_ms INTEGER NOT NULL,     -- of the epoch
    checksum    INTEGER NOT NULL,     -- CRC-32 of head and payload
    payload     BLOB NOT NULL
);

-- Events whose function has failed: how often, and when it is to run again.
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY,
    runs   INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
);

-- What is owed to a destination or a dead-letter target.
CREATE TABLE records (
    number     INTEGER PRIMARY KEY,
    made_ms    INTEGER NOT NULL,
    head       TEXT NOT NULL,  -- JSON: for whom, about what
    body       BLOB NOT NULL
);

-- How events ended about which somebody may ask.
CREATE TABLE outcomes (
    request_id TEXT PRIMARY KEY,
    ended_ms   INTEGER NOT NULL,
    document   TEXT NOT NULL,  -- JSON
    payload    BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX outcomes_by_time ON outcomes (ended_ms);

-- Idempotency keys, of events that wait and of events that have ended.
CREATE TABLE once (
    key        TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    made_ms    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX once_by_time ON once (made_ms);

-- When schedules are due next: written down together with the events that a due one has made.
CREATE TABLE clocks (
    name     TEXT PRIMARY KEY,  -- ARN of the schedule, or of the rule that has one
    mark     TEXT NOT NULL,     -- of what it is set to; another one: it starts anew
    due_ms   INTEGER,           -- null: never again
    fired_ms INTEGER NOT NULL   -- for which time it has fired last; 0: it never has
) WITHOUT ROWID;
