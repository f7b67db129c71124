-- A key ends by being deleted, by its expiry, or by being stopped after its replacement.
ALTER TABLE api_keys RENAME COLUMN deleted_at TO ended_at;
ALTER TABLE api_keys RENAME COLUMN deleted_domain_names TO ended_domain_names;
ALTER TABLE api_keys ADD COLUMN ended_how TEXT CHECK (ended_how IN ('deleted', 'expired', 'stopped'));
ALTER TABLE api_keys ADD COLUMN ended_by TEXT;
-- What the hash was, for people who ask which key this was: verification never looks here.
ALTER TABLE api_keys ADD COLUMN ended_hash BYTEA;
UPDATE api_keys SET ended_how = 'deleted' WHERE ended_at IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN paused_at TIMESTAMP;
ALTER TABLE api_keys ADD COLUMN paused_by TEXT;
ALTER TABLE api_keys ADD COLUMN expires_at TIMESTAMP;

-- A successor names the key that it replaces; that one stops at a time, or when it has not been
-- used for so many seconds.
ALTER TABLE api_keys ADD COLUMN replaces BIGINT REFERENCES api_keys (id);
ALTER TABLE api_keys ADD COLUMN stops_at TIMESTAMP;
ALTER TABLE api_keys ADD COLUMN stops_when_quiet BIGINT;

-- A line for each address (senders) or each address or domain (recipients); NULL: any.
ALTER TABLE api_keys ADD COLUMN senders TEXT;
ALTER TABLE api_keys ADD COLUMN recipients TEXT;

-- Two rotations at once make one successor.
CREATE UNIQUE INDEX api_keys_replaces ON api_keys (replaces) WHERE replaces IS NOT NULL AND ended_at IS NULL;
CREATE INDEX api_keys_ended_of_account ON api_keys (account_id, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX api_keys_ended_hash ON api_keys (ended_hash) WHERE ended_hash IS NOT NULL;
CREATE INDEX api_keys_ended_with_hash ON api_keys (ended_at) WHERE ended_hash IS NOT NULL;
CREATE INDEX api_keys_truncated ON api_keys (account_id, first8, last4);
CREATE INDEX api_keys_expires_at ON api_keys (expires_at) WHERE expires_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX api_keys_stops_at ON api_keys (stops_at) WHERE stops_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX api_keys_stops_when_quiet ON api_keys (id) WHERE stops_when_quiet IS NOT NULL AND ended_at IS NULL;
