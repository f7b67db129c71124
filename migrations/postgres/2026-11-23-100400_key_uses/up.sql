-- Beside the keys, since it changes all the time and they do not.
CREATE TABLE api_key_uses (
    api_key_id BIGINT PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    used_at TIMESTAMP NOT NULL,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL
);
