DROP TABLE clock_seen;
