CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    title TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'paused')),
    key_count INTEGER NOT NULL DEFAULT 0 CHECK (key_count >= 0),
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    email TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner')),
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX users_account_id ON users (account_id);

CREATE TABLE sessions (
    id_hash BLOB NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_created_at ON sessions (created_at);

-- Keyed by a hash of the email address, known or not, so that both answer alike.
CREATE TABLE login_attempts (
    email_hash BLOB NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    next_at TEXT NOT NULL
) STRICT;
CREATE INDEX login_attempts_next_at ON login_attempts (next_at);
