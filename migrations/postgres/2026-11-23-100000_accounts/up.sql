CREATE TABLE accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'paused')),
    key_count BIGINT NOT NULL DEFAULT 0 CHECK (key_count >= 0),
    created_at TIMESTAMP NOT NULL
);

CREATE TABLE users (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    email TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner')),
    created_at TIMESTAMP NOT NULL
);
CREATE INDEX users_account_id ON users (account_id);

CREATE TABLE sessions (
    id_hash BYTEA PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at TIMESTAMP NOT NULL,
    last_seen_at TIMESTAMP NOT NULL
);
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_created_at ON sessions (created_at);

-- Keyed by a hash of the email address, known or not, so that both answer alike.
CREATE TABLE login_attempts (
    email_hash BYTEA PRIMARY KEY,
    failures BIGINT NOT NULL,
    next_at TIMESTAMP NOT NULL
);
CREATE INDEX login_attempts_next_at ON login_attempts (next_at);
