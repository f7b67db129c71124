DROP TABLE events;
DROP FUNCTION refuse_update;
