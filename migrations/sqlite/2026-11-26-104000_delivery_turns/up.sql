-- Finds the next account with emails to deliver, and of an account its oldest that is due: of those
-- that were never tried (held), and of those that are tried again (deferred).
CREATE INDEX emails_waiting ON emails (account_id, status, next_attempt_at) WHERE ended_at IS NULL;
