-- Emails by hour, counted once the hour is over; those of later hours are counted where they are.
-- An hour begins at it, in UTC. A domain that was deleted since leaves no NULL: 0.
CREATE TABLE email_counts (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    api_key_id INTEGER NOT NULL REFERENCES api_keys (id),
    domain_id INTEGER NOT NULL,
    hour TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    PRIMARY KEY (account_id, hour, api_key_id, domain_id)
) STRICT;
CREATE INDEX email_counts_api_key_id_hour ON email_counts (api_key_id, hour);
CREATE INDEX email_counts_domain_id ON email_counts (domain_id);
CREATE INDEX emails_created_at ON emails (created_at);
-- Up to which hour they are counted, in one row.
CREATE TABLE email_counts_frontier (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    counted_before TEXT NOT NULL
) STRICT;
