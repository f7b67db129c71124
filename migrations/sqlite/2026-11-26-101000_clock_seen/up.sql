-- The time as this database has seen it, in one row: what is deleted by age is deleted only while the
-- clock is in line with it. odd_at: what the clock said last, while it is out of line, and for how many
-- seconds of running it has gone steadily since.
CREATE TABLE clock_seen (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    believed_at TEXT NOT NULL,
    odd_at TEXT,
    steady_seconds INTEGER NOT NULL
) STRICT;
-- The latest thing that an older version wrote down.
INSERT INTO clock_seen (id, believed_at, odd_at, steady_seconds)
SELECT 1, at, NULL, 0
FROM (
    SELECT max(at) AS at
    FROM (
        SELECT max(at) AS at FROM events
        UNION ALL SELECT max(last_seen_at) FROM sessions
        UNION ALL SELECT max(hour) FROM api_key_calls
    ) AS each
) AS latest
WHERE at IS NOT NULL;
