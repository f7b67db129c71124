DROP INDEX form_nonces_api_key_id;
DROP INDEX api_keys_created_by;
DROP INDEX api_keys_replaced;
DROP INDEX accounts_deleted;
ALTER TABLE accounts DROP COLUMN deleted_at;
