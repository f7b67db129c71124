-- A deleted key keeps its row for the history: without a hash it can never be presented again.
CREATE TABLE api_keys (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    hash BYTEA UNIQUE,
    first8 TEXT NOT NULL,
    last4 TEXT NOT NULL,
    all_domains BOOLEAN NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'paused')),
    created_by BIGINT REFERENCES users (id),
    created_at TIMESTAMP NOT NULL,
    deleted_at TIMESTAMP,
    deleted_domain_names TEXT,
    CHECK ((hash IS NULL) = (deleted_at IS NOT NULL))
);
CREATE INDEX api_keys_live_of_account ON api_keys (account_id, id) WHERE deleted_at IS NULL;

CREATE TABLE api_key_domains (
    api_key_id BIGINT NOT NULL REFERENCES api_keys (id),
    domain_id BIGINT NOT NULL REFERENCES sending_domains (id) ON DELETE RESTRICT,
    PRIMARY KEY (api_key_id, domain_id)
);
CREATE INDEX api_key_domains_domain_id ON api_key_domains (domain_id);

CREATE TABLE form_nonces (
    nonce_hash BYTEA PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    api_key_id BIGINT REFERENCES api_keys (id),
    created_at TIMESTAMP NOT NULL,
    used_at TIMESTAMP
);
CREATE INDEX form_nonces_created_at ON form_nonces (created_at);
