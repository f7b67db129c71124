-- Finds the events of an actor, and those of a kind (the beginning of the action) and an actor, newest first.
CREATE INDEX events_of_actor ON events (account_id, actor, at, id);
CREATE INDEX events_of_kind ON events (account_id, substr(action, 1, 3), actor, at, id);
-- Those of a key, in the order in which they are shown.
DROP INDEX events_of_subject;
CREATE INDEX events_of_subject ON events (account_id, subject_id, at, id);
