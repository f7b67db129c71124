DROP INDEX events_of_subject;
CREATE INDEX events_of_subject ON events (account_id, subject_id, id);
DROP INDEX events_of_kind;
DROP INDEX events_of_actor;
