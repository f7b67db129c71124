-- Changes that can alter whether a key works, or for what: triggers record them (src/db/verdict_changes/sqlite.sql).
-- The numbers have no gaps. account_id: whose keys; 0: all. Only the newest rows are kept.
CREATE TABLE verdict_changes (
    n INTEGER PRIMARY KEY,
    -- Random, so that another database with the same number is recognised.
    mark BLOB NOT NULL,
    account_id INTEGER NOT NULL
) STRICT;
