CREATE TABLE email_counts (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    api_key_id BIGINT NOT NULL REFERENCES api_keys (id),
    domain_id BIGINT NOT NULL,
    hour TIMESTAMP NOT NULL,
    accepted BIGINT NOT NULL,
    PRIMARY KEY (account_id, hour, api_key_id, domain_id)
);
CREATE INDEX email_counts_api_key_id_hour ON email_counts (api_key_id, hour);
CREATE INDEX email_counts_domain_id ON email_counts (domain_id);
CREATE INDEX emails_created_at ON emails (created_at);
CREATE TABLE email_counts_frontier (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    counted_before TIMESTAMP NOT NULL
);
-- Days are kept as their first hour, up to the last one: its emails are counted anew, where they are.
INSERT INTO email_counts_frontier (id, counted_before)
SELECT 1, day FROM email_totals ORDER BY day DESC LIMIT 1;
INSERT INTO email_counts (account_id, api_key_id, domain_id, hour, accepted)
SELECT account_id, api_key_id, domain_id, day, accepted FROM email_totals
WHERE api_key_id <> 0 AND day < (SELECT counted_before FROM email_counts_frontier);
DROP TABLE email_hours;
DROP TABLE email_totals;
