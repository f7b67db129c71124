-- When the account was deleted, which is final. It is paused then, too: no key of it works, whatever
-- looks at the status alone. Its rows are removed later, in small steps.
ALTER TABLE accounts ADD COLUMN deleted_at TEXT;
CREATE INDEX accounts_deleted ON accounts (id) WHERE deleted_at IS NOT NULL;

-- For the foreign keys, whose rows are looked for when a key or a person is removed.
CREATE INDEX api_keys_replaced ON api_keys (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX api_keys_created_by ON api_keys (created_by) WHERE created_by IS NOT NULL;
CREATE INDEX form_nonces_api_key_id ON form_nonces (api_key_id) WHERE api_key_id IS NOT NULL;
