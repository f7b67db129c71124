-- Changes that were committed while the journal of ends could not be written, by their numbers there.
CREATE TABLE ends_unwritten (
    n BIGINT PRIMARY KEY,
    line TEXT NOT NULL
);
