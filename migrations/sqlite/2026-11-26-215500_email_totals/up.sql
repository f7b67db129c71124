-- How many emails were accepted, written in the transaction that accepts them. A day begins at it, in UTC.
-- api_key_id 0: all keys of the account together, so that reading an account's totals does not cost more
-- the more keys it has. domain_id 0: a domain that was deleted before its emails were counted.
CREATE TABLE email_totals (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    api_key_id INTEGER NOT NULL,
    day TEXT NOT NULL,
    domain_id INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    PRIMARY KEY (account_id, api_key_id, day, domain_id)
) STRICT, WITHOUT ROWID;

-- The same by hour, for the last 24 hours; deleted after some days.
CREATE TABLE email_hours (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    api_key_id INTEGER NOT NULL,
    hour TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    PRIMARY KEY (account_id, api_key_id, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX email_hours_hour ON email_hours (hour, account_id, api_key_id);

-- What was counted, and the emails since. (Cut as text: the functions for dates round up.)
INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
SELECT account_id, api_key_id, substr(at, 1, 10) || ' 00:00:00', domain_id, sum(accepted)
FROM (
    SELECT account_id, api_key_id, hour AS at, domain_id, accepted FROM email_counts
    WHERE hour < (SELECT counted_before FROM email_counts_frontier)
    UNION ALL
    SELECT account_id, api_key_id, created_at, coalesce(domain_id, 0), 1 FROM emails
    WHERE created_at >= coalesce((SELECT counted_before FROM email_counts_frontier), '')
) AS counted
GROUP BY 1, 2, 3, 4;
INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
SELECT account_id, 0, day, domain_id, sum(accepted) FROM email_totals GROUP BY 1, 3, 4;

INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
SELECT account_id, api_key_id, substr(at, 1, 13) || ':00:00', sum(accepted)
FROM (
    SELECT account_id, api_key_id, hour AS at, accepted FROM email_counts
    WHERE hour < (SELECT counted_before FROM email_counts_frontier)
    UNION ALL
    SELECT account_id, api_key_id, created_at, 1 FROM emails
    WHERE created_at >= coalesce((SELECT counted_before FROM email_counts_frontier), '')
) AS counted
WHERE at >= datetime(min(datetime('now'), coalesce((SELECT counted_before FROM email_counts_frontier), '9999')), '-3 days')
GROUP BY 1, 2, 3;
INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
SELECT account_id, 0, hour, sum(accepted) FROM email_hours GROUP BY 1, 3;

DROP TABLE email_counts;
DROP TABLE email_counts_frontier;
-- It found the emails of an hour.
DROP INDEX emails_created_at;
