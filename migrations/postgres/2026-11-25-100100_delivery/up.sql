-- held: not tried yet; deferred: to be tried again; then delivered to the relay, or failed.
-- message: gone some time after the end. remaining: the addresses that are still to get it, as a JSON
-- list; NULL: all. refused: a JSON list of those that never will, each with the relay's words.
ALTER TABLE emails ALTER COLUMN message DROP NOT NULL;
ALTER TABLE emails DROP CONSTRAINT emails_status_check;
ALTER TABLE emails ADD CONSTRAINT emails_status_check CHECK (status IN ('held', 'deferred', 'delivered', 'failed'));
-- What stands before the @ of its Message-ID (RFC 5322, 3.6.4): the same at every attempt.
ALTER TABLE emails ADD COLUMN internet_id TEXT;
UPDATE emails SET internet_id = replace(gen_random_uuid()::text, '-', '');
ALTER TABLE emails ALTER COLUMN internet_id SET NOT NULL;
ALTER TABLE emails ADD COLUMN attempts BIGINT NOT NULL DEFAULT 0;
-- While a worker has it: when another may take it over. claim: whose it is.
ALTER TABLE emails ADD COLUMN next_attempt_at TIMESTAMP;
UPDATE emails SET next_attempt_at = created_at;
ALTER TABLE emails ALTER COLUMN next_attempt_at SET NOT NULL;
ALTER TABLE emails ADD COLUMN claim TEXT;
ALTER TABLE emails ADD COLUMN ended_at TIMESTAMP;
ALTER TABLE emails ADD COLUMN remaining TEXT;
ALTER TABLE emails ADD COLUMN refused TEXT;
-- The relay's last words, or what stands in the way.
ALTER TABLE emails ADD COLUMN reply TEXT;
-- From when on it counts how long the relay puts it off.
ALTER TABLE emails ADD COLUMN first_attempt_at TIMESTAMP;
-- What is shown of it, also when the message is gone: from, the first of to, and how many in all.
ALTER TABLE emails ADD COLUMN sender TEXT;
ALTER TABLE emails ADD COLUMN recipient TEXT;
ALTER TABLE emails ADD COLUMN recipients BIGINT;
-- PostgreSQL reads no JSON with \u0000, which a text may have.
UPDATE emails SET
    sender = json #>> '{from,email}',
    recipient = json #>> '{to,0,email}',
    recipients = json_array_length(json -> 'to') + json_array_length(json -> 'cc') + json_array_length(json -> 'bcc')
FROM (SELECT id AS of_id, replace(message, '\u0000', '\u0020')::json AS json FROM emails) AS stored
WHERE id = of_id;
ALTER TABLE emails ADD CHECK ((status IN ('delivered', 'failed')) = (ended_at IS NOT NULL));
CREATE INDEX emails_api_key_id_created_at ON emails (api_key_id, created_at);
CREATE INDEX emails_due ON emails (next_attempt_at) WHERE ended_at IS NULL;
CREATE INDEX emails_ended_with_message ON emails (ended_at) WHERE ended_at IS NOT NULL AND message IS NOT NULL;
CREATE INDEX emails_account_id_status_created_at ON emails (account_id, status, created_at);
