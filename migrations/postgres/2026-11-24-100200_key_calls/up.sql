-- How many calls a key made in an hour (UTC), by how they ended: 'accepted', or why not.
CREATE TABLE api_key_calls (
    api_key_id BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    hour TIMESTAMP NOT NULL,
    outcome TEXT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (api_key_id, hour, outcome)
);
CREATE INDEX api_key_calls_hour ON api_key_calls (hour, api_key_id);
