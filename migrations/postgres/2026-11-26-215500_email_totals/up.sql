-- How many emails were accepted, written in the transaction that accepts them. A day begins at it, in UTC.
-- api_key_id 0: all keys of the account together, so that reading an account's totals does not cost more
-- the more keys it has. domain_id 0: a domain that was deleted before its emails were counted.
CREATE TABLE email_totals (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    api_key_id BIGINT NOT NULL,
    day TIMESTAMP NOT NULL,
    domain_id BIGINT NOT NULL,
    accepted BIGINT NOT NULL,
    PRIMARY KEY (account_id, api_key_id, day, domain_id)
);

-- The same by hour, for the last 24 hours; deleted after some days.
CREATE TABLE email_hours (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    api_key_id BIGINT NOT NULL,
    hour TIMESTAMP NOT NULL,
    accepted BIGINT NOT NULL,
    PRIMARY KEY (account_id, api_key_id, hour)
);
CREATE INDEX email_hours_hour ON email_hours (hour, account_id, api_key_id);

-- A node of the version before reads it before it stores an email: those that have are waited for, and
-- those that come later fail.
LOCK TABLE email_counts_frontier IN ACCESS EXCLUSIVE MODE;

-- What was counted, and the emails since.
INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
SELECT account_id, api_key_id, date_trunc('day', at), domain_id, sum(accepted)
FROM (
    SELECT account_id, api_key_id, hour AS at, domain_id, accepted FROM email_counts
    WHERE hour < (SELECT counted_before FROM email_counts_frontier)
    UNION ALL
    SELECT account_id, api_key_id, created_at, coalesce(domain_id, 0), 1 FROM emails
    WHERE created_at >= coalesce((SELECT counted_before FROM email_counts_frontier), '-infinity')
) AS counted
GROUP BY 1, 2, 3, 4;
INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
SELECT account_id, 0, day, domain_id, sum(accepted) FROM email_totals GROUP BY 1, 3, 4;

INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
SELECT account_id, api_key_id, date_trunc('hour', at), sum(accepted)
FROM (
    SELECT account_id, api_key_id, hour AS at, accepted FROM email_counts
    WHERE hour < (SELECT counted_before FROM email_counts_frontier)
    UNION ALL
    SELECT account_id, api_key_id, created_at, 1 FROM emails
    WHERE created_at >= coalesce((SELECT counted_before FROM email_counts_frontier), '-infinity')
) AS counted
WHERE at >= least(now() AT TIME ZONE 'UTC', (SELECT counted_before FROM email_counts_frontier)) - interval '3 days'
GROUP BY 1, 2, 3;
INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
SELECT account_id, 0, hour, sum(accepted) FROM email_hours GROUP BY 1, 3;

DROP TABLE email_counts;
DROP TABLE email_counts_frontier;
-- It found the emails of an hour.
DROP INDEX emails_created_at;
