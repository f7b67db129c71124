-- What happened in an account. actor: an email address, 'operator' (the command line) or 'server'.
-- subject and detail: text as of then, since what they name may be renamed or gone; never a secret.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    subject_id INTEGER,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_account ON events (account_id, at, id);
CREATE INDEX events_of_subject ON events (account_id, subject_id, id);
CREATE INDEX events_at ON events (at);
CREATE TRIGGER events_are_append_only BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;
