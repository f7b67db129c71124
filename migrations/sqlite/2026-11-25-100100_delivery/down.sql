CREATE TABLE emails_old (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    api_key_id INTEGER NOT NULL REFERENCES api_keys (id),
    domain_id INTEGER REFERENCES sending_domains (id) ON DELETE SET NULL,
    message_id TEXT NOT NULL,
    message TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('held')),
    created_at TEXT NOT NULL
) STRICT;
INSERT INTO emails_old
    SELECT id, account_id, api_key_id, domain_id, message_id, coalesce(message, ''), 'held', created_at FROM emails;
DROP TABLE emails;
ALTER TABLE emails_old RENAME TO emails;
CREATE INDEX emails_account_id_created_at ON emails (account_id, created_at);
CREATE INDEX emails_domain_id ON emails (domain_id);
