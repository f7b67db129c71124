-- Records in verdict_changes what can alter a verdict on a key, whoever changes it.
-- The program puts the schema of the tables where the functions name it.
--
-- The triggers are deferred to the commit, so that the lock is the last one that a transaction takes: it cannot
-- deadlock, and is held from the numbering of the changes until they can be seen. ALWAYS: also while changes are
-- replayed (session_replication_role = replica).

CREATE OR REPLACE FUNCTION verdict_record(account BIGINT) RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
DECLARE
    -- The first number that this transaction used. Rolled back with its savepoint, as the row is.
    first_n BIGINT := nullif(current_setting('tosend.first_verdict_change', true), '')::BIGINT;
    next_n BIGINT;
BEGIN
    IF first_n IS NULL THEN
        PERFORM pg_advisory_xact_lock(7306005);
    ELSIF EXISTS (SELECT 1 FROM verdict_changes WHERE account_id = account AND n >= first_n) THEN
        RETURN;
    END IF;
    -- A statement of its own, so that it sees what was committed before the lock was given.
    SELECT coalesce(max(n), 0) + 1 INTO next_n FROM verdict_changes;
    INSERT INTO verdict_changes VALUES (next_n, substring(uuid_send(gen_random_uuid()) FROM 9), account);
    DELETE FROM verdict_changes WHERE n = next_n - 10000;
    IF first_n IS NULL THEN
        PERFORM set_config('tosend.first_verdict_change', next_n::TEXT, true);
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION verdict_of_key() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    PERFORM verdict_record(OLD.account_id);
    IF TG_OP = 'UPDATE' AND NEW.account_id <> OLD.account_id THEN
        PERFORM verdict_record(NEW.account_id);
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION verdict_of_account() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM verdict_record(OLD.id);
    ELSIF NEW.id <> OLD.id OR NEW.status <> OLD.status THEN
        PERFORM verdict_record(OLD.id);
        PERFORM verdict_record(NEW.id);
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION verdict_of_domain() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.id, OLD.account_id, OLD.name, OLD.status)
        = (NEW.id, NEW.account_id, NEW.name, NEW.status) THEN
        RETURN NULL;
    END IF;
    -- It matters to the keys that are restricted to it.
    IF TG_OP <> 'INSERT' THEN
        PERFORM verdict_record(account_id) FROM
            (SELECT DISTINCT account_id FROM api_key_domains JOIN api_keys ON id = api_key_id WHERE domain_id = OLD.id) AS linked;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM verdict_record(account_id) FROM
            (SELECT DISTINCT account_id FROM api_key_domains JOIN api_keys ON id = api_key_id WHERE domain_id = NEW.id) AS linked;
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION verdict_of_link() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM verdict_record(account_id) FROM api_keys WHERE id = OLD.api_key_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM verdict_record(account_id) FROM api_keys WHERE id = NEW.api_key_id;
    END IF;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION verdict_of_all() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $body$
BEGIN
    PERFORM verdict_record(0);
    RETURN NULL;
END
$body$;

DROP TRIGGER IF EXISTS verdict_key ON api_keys;
DROP TRIGGER IF EXISTS verdict_account ON accounts;
DROP TRIGGER IF EXISTS verdict_domain ON sending_domains;
DROP TRIGGER IF EXISTS verdict_link ON api_key_domains;
DROP TRIGGER IF EXISTS verdict_truncated ON api_keys;
DROP TRIGGER IF EXISTS verdict_truncated ON accounts;
DROP TRIGGER IF EXISTS verdict_truncated ON sending_domains;
DROP TRIGGER IF EXISTS verdict_truncated ON api_key_domains;

CREATE CONSTRAINT TRIGGER verdict_key AFTER UPDATE OR DELETE ON api_keys
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION verdict_of_key();
CREATE CONSTRAINT TRIGGER verdict_account AFTER UPDATE OR DELETE ON accounts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION verdict_of_account();
CREATE CONSTRAINT TRIGGER verdict_domain AFTER INSERT OR UPDATE OR DELETE ON sending_domains
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION verdict_of_domain();
CREATE CONSTRAINT TRIGGER verdict_link AFTER INSERT OR UPDATE OR DELETE ON api_key_domains
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION verdict_of_link();
CREATE TRIGGER verdict_truncated AFTER TRUNCATE ON api_keys EXECUTE FUNCTION verdict_of_all();
CREATE TRIGGER verdict_truncated AFTER TRUNCATE ON accounts EXECUTE FUNCTION verdict_of_all();
CREATE TRIGGER verdict_truncated AFTER TRUNCATE ON sending_domains EXECUTE FUNCTION verdict_of_all();
CREATE TRIGGER verdict_truncated AFTER TRUNCATE ON api_key_domains EXECUTE FUNCTION verdict_of_all();

ALTER TABLE api_keys ENABLE ALWAYS TRIGGER verdict_key, ENABLE ALWAYS TRIGGER verdict_truncated;
ALTER TABLE accounts ENABLE ALWAYS TRIGGER verdict_account, ENABLE ALWAYS TRIGGER verdict_truncated;
ALTER TABLE sending_domains ENABLE ALWAYS TRIGGER verdict_domain, ENABLE ALWAYS TRIGGER verdict_truncated;
ALTER TABLE api_key_domains ENABLE ALWAYS TRIGGER verdict_link, ENABLE ALWAYS TRIGGER verdict_truncated;
