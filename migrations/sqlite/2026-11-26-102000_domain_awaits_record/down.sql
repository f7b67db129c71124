ALTER TABLE sending_domains DROP COLUMN awaits_record;
