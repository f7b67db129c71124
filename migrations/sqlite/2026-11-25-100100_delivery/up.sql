-- held: not tried yet; deferred: to be tried again; then delivered to the relay, or failed.
-- message: gone some time after the end. remaining: the addresses that are still to get it, as a JSON
-- list; NULL: all. refused: a JSON list of those that never will, each with the relay's words.
CREATE TABLE emails_new (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    api_key_id INTEGER NOT NULL REFERENCES api_keys (id),
    domain_id INTEGER REFERENCES sending_domains (id) ON DELETE SET NULL,
    message_id TEXT NOT NULL,
    message TEXT,
    status TEXT NOT NULL CHECK (status IN ('held', 'deferred', 'delivered', 'failed')),
    created_at TEXT NOT NULL,
    -- What stands before the @ of its Message-ID (RFC 5322, 3.6.4): the same at every attempt.
    internet_id TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- While a worker has it: when another may take it over. claim: whose it is.
    next_attempt_at TEXT NOT NULL,
    claim TEXT,
    ended_at TEXT,
    remaining TEXT,
    refused TEXT,
    -- The relay's last words, or what stands in the way.
    reply TEXT,
    -- From when on it counts how long the relay puts it off.
    first_attempt_at TEXT,
    -- What is shown of it, also when the message is gone: from, the first of to, and how many in all.
    sender TEXT,
    recipient TEXT,
    recipients INTEGER,
    CHECK ((status IN ('delivered', 'failed')) = (ended_at IS NOT NULL))
) STRICT;
INSERT INTO emails_new (id, account_id, api_key_id, domain_id, message_id, message, status, created_at, internet_id, next_attempt_at, sender, recipient, recipients)
    SELECT id, account_id, api_key_id, domain_id, message_id, message, status, created_at, lower(hex(randomblob(16))), created_at,
        json_extract(message, '$.from.email'), json_extract(message, '$.to[0].email'),
        json_array_length(message, '$.to') + json_array_length(message, '$.cc') + json_array_length(message, '$.bcc')
    FROM emails;
DROP TABLE emails;
ALTER TABLE emails_new RENAME TO emails;
CREATE INDEX emails_account_id_created_at ON emails (account_id, created_at);
CREATE INDEX emails_domain_id ON emails (domain_id);
CREATE INDEX emails_api_key_id_created_at ON emails (api_key_id, created_at);
CREATE INDEX emails_due ON emails (next_attempt_at) WHERE ended_at IS NULL;
CREATE INDEX emails_ended_with_message ON emails (ended_at) WHERE ended_at IS NOT NULL AND message IS NOT NULL;
CREATE INDEX emails_account_id_status_created_at ON emails (account_id, status, created_at);
