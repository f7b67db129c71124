-- One row: a hash of the secret that all nodes share.
CREATE TABLE nodes_secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hash BLOB NOT NULL
) STRICT;
