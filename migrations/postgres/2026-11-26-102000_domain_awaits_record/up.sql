-- Its key was replaced after its emails were signed: they wait until the new one's record is found.
ALTER TABLE sending_domains ADD COLUMN awaits_record BOOLEAN NOT NULL DEFAULT false;
