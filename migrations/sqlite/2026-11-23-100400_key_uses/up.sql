-- Beside the keys, since it changes all the time and they do not.
CREATE TABLE api_key_uses (
    api_key_id INTEGER PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    used_at TEXT NOT NULL,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL
) STRICT;
