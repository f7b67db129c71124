-- What stands where the record of the domain's key belongs, when that is something else; cut.
ALTER TABLE sending_domains ADD COLUMN dkim_seen TEXT;
