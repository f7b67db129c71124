DROP TABLE email_counts_frontier;
DROP INDEX emails_created_at;
DROP TABLE email_counts;
