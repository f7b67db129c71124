-- What wrong passwords count against: an email address (known or not), a device, or a session.
ALTER TABLE login_attempts RENAME COLUMN email_hash TO counter_hash;

-- Finds the oldest forms of a person.
CREATE INDEX form_nonces_user_id ON form_nonces (user_id, created_at);
