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
ALTER TABLE emails ADD CHECK ((status IN ('delivered', 'failed')) = (ended_at IS NOT NULL));
CREATE INDEX emails_api_key_id_created_at ON emails (api_key_id, created_at);
CREATE INDEX emails_due ON emails (next_attempt_at) WHERE ended_at IS NULL;
CREATE INDEX emails_ended_with_message ON emails (ended_at) WHERE ended_at IS NOT NULL AND message IS NOT NULL;
