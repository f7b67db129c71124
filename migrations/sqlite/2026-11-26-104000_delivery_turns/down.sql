DROP INDEX emails_waiting;
