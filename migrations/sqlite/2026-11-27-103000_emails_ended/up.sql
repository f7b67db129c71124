-- Finds the emails whose rows are to be deleted; those with their content are in emails_ended_with_message.
CREATE INDEX emails_ended_without_message ON emails (ended_at) WHERE ended_at IS NOT NULL AND message IS NULL;
