-- Which journal of ends belongs to this database, and the last of its changes that was committed here.
CREATE TABLE ends_journal (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    journal_id TEXT NOT NULL,
    last BIGINT NOT NULL,
    -- When an older copy of the database was last brought up to date from the journal.
    recovered_at TIMESTAMP
);
