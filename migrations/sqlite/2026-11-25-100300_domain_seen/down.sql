ALTER TABLE sending_domains DROP COLUMN dkim_seen;
