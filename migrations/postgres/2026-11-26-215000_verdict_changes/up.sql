-- Changes that can alter whether a key works, or for what: triggers record them (src/db/verdict_changes/postgres.sql).
-- The numbers have no gaps, and their order is that of the commits. account_id: whose keys; 0: all. It has no foreign
-- key, whose lock on the account could deadlock. Only the newest rows are kept.
CREATE TABLE verdict_changes (
    n BIGINT PRIMARY KEY,
    -- Random, so that another database with the same number is recognised.
    mark BYTEA NOT NULL,
    account_id BIGINT NOT NULL
);
CREATE INDEX verdict_changes_of_account ON verdict_changes (account_id, n);
