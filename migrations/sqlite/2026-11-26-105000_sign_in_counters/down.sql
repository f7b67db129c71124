DROP INDEX form_nonces_user_id;
ALTER TABLE login_attempts RENAME COLUMN counter_hash TO email_hash;
