-- Records in verdict_changes what can alter a verdict on a key, whoever changes it. Rebuilding a table drops its
-- triggers: this file is applied after every migration. Each trigger ends with END on a line of its own.
--
-- A domain matters to the keys that are restricted to it.
-- OR REPLACE deletes rows without firing a trigger for DELETE, so that what it displaces is recorded before.

CREATE TRIGGER verdict_key_inserted BEFORE INSERT ON api_keys
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), account_id FROM api_keys
        WHERE id = NEW.id OR hash = NEW.hash OR (replaces = NEW.replaces AND ended_at IS NULL);
END;

CREATE TRIGGER verdict_key_updating BEFORE UPDATE ON api_keys
WHEN NEW.id <> OLD.id OR NEW.hash IS NOT OLD.hash OR NEW.replaces IS NOT OLD.replaces OR NEW.ended_at IS NOT OLD.ended_at
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), account_id FROM api_keys
        WHERE (id = NEW.id OR hash = NEW.hash OR (replaces = NEW.replaces AND ended_at IS NULL)) AND id <> OLD.id;
END;

CREATE TRIGGER verdict_key_updated AFTER UPDATE ON api_keys
BEGIN
    INSERT INTO verdict_changes (mark, account_id) VALUES (randomblob(8), OLD.account_id);
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), NEW.account_id WHERE NEW.account_id <> OLD.account_id;
END;

CREATE TRIGGER verdict_key_deleted AFTER DELETE ON api_keys
BEGIN
    INSERT INTO verdict_changes (mark, account_id) VALUES (randomblob(8), OLD.account_id);
END;

CREATE TRIGGER verdict_account_inserted AFTER INSERT ON accounts
BEGIN
    INSERT INTO verdict_changes (mark, account_id) VALUES (randomblob(8), NEW.id);
END;

CREATE TRIGGER verdict_account_updated AFTER UPDATE ON accounts
WHEN NEW.id <> OLD.id OR NEW.status <> OLD.status
BEGIN
    INSERT INTO verdict_changes (mark, account_id) VALUES (randomblob(8), OLD.id);
    INSERT INTO verdict_changes (mark, account_id) SELECT randomblob(8), NEW.id WHERE NEW.id <> OLD.id;
END;

CREATE TRIGGER verdict_account_deleted AFTER DELETE ON accounts
BEGIN
    INSERT INTO verdict_changes (mark, account_id) VALUES (randomblob(8), OLD.id);
END;

CREATE TRIGGER verdict_domain_inserting BEFORE INSERT ON sending_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), key.account_id FROM sending_domains AS displaced
        JOIN api_key_domains AS link ON link.domain_id = displaced.id
        JOIN api_keys AS key ON key.id = link.api_key_id
        WHERE displaced.id = NEW.id OR displaced.name = NEW.name
        GROUP BY key.account_id;
END;

CREATE TRIGGER verdict_domain_inserted AFTER INSERT ON sending_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), key.account_id FROM api_key_domains AS link
        JOIN api_keys AS key ON key.id = link.api_key_id
        WHERE link.domain_id = NEW.id
        GROUP BY key.account_id;
END;

CREATE TRIGGER verdict_domain_updating BEFORE UPDATE ON sending_domains
WHEN NEW.id <> OLD.id OR NEW.account_id <> OLD.account_id OR NEW.name <> OLD.name OR NEW.status <> OLD.status
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), key.account_id FROM sending_domains AS displaced
        JOIN api_key_domains AS link ON link.domain_id = displaced.id
        JOIN api_keys AS key ON key.id = link.api_key_id
        WHERE (displaced.id = NEW.id OR displaced.name = NEW.name) AND displaced.id <> OLD.id
        GROUP BY key.account_id;
END;

CREATE TRIGGER verdict_domain_updated AFTER UPDATE ON sending_domains
WHEN NEW.id <> OLD.id OR NEW.account_id <> OLD.account_id OR NEW.name <> OLD.name OR NEW.status <> OLD.status
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), key.account_id FROM api_key_domains AS link
        JOIN api_keys AS key ON key.id = link.api_key_id
        WHERE link.domain_id IN (OLD.id, NEW.id)
        GROUP BY key.account_id;
END;

CREATE TRIGGER verdict_domain_deleted AFTER DELETE ON sending_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), key.account_id FROM api_key_domains AS link
        JOIN api_keys AS key ON key.id = link.api_key_id
        WHERE link.domain_id = OLD.id
        GROUP BY key.account_id;
END;

CREATE TRIGGER verdict_link_inserted AFTER INSERT ON api_key_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), account_id FROM api_keys WHERE id = NEW.api_key_id;
END;

CREATE TRIGGER verdict_link_updated AFTER UPDATE ON api_key_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), account_id FROM api_keys WHERE id IN (OLD.api_key_id, NEW.api_key_id);
END;

CREATE TRIGGER verdict_link_deleted AFTER DELETE ON api_key_domains
BEGIN
    INSERT INTO verdict_changes (mark, account_id)
        SELECT randomblob(8), account_id FROM api_keys WHERE id = OLD.api_key_id;
END;

CREATE TRIGGER verdict_changes_are_few AFTER INSERT ON verdict_changes
BEGIN
    DELETE FROM verdict_changes WHERE n <= NEW.n - 10000;
END;
