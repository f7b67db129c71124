-- One row: a hash of the secret that all nodes share.
CREATE TABLE nodes_secret (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    hash BYTEA NOT NULL
);
