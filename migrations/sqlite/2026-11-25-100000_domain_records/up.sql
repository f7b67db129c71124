-- The key that signs a domain's emails; the private half is encrypted with the server's secret.
ALTER TABLE sending_domains ADD COLUMN dkim_public TEXT;
ALTER TABLE sending_domains ADD COLUMN dkim_private BLOB;

-- What the last answer of DNS said of each record.
ALTER TABLE sending_domains ADD COLUMN dkim_state TEXT NOT NULL DEFAULT 'unknown' CHECK (dkim_state IN ('unknown', 'found', 'missing', 'different'));
ALTER TABLE sending_domains ADD COLUMN spf_state TEXT NOT NULL DEFAULT 'unknown' CHECK (spf_state IN ('unknown', 'found', 'missing', 'different'));
ALTER TABLE sending_domains ADD COLUMN dmarc_state TEXT NOT NULL DEFAULT 'unknown' CHECK (dmarc_state IN ('unknown', 'found', 'missing', 'different'));
ALTER TABLE sending_domains ADD COLUMN checked_at TEXT;
-- NULL: as soon as possible.
ALTER TABLE sending_domains ADD COLUMN next_check_at TEXT;
-- When the record of a verified domain was first found to be gone.
ALTER TABLE sending_domains ADD COLUMN missing_since TEXT;
-- Since when it is pending: at first, since it was added.
ALTER TABLE sending_domains ADD COLUMN pending_since TEXT;
UPDATE sending_domains SET pending_since = created_at;

-- By the operator: not moved by what DNS says.
ALTER TABLE sending_domains ADD COLUMN is_attested INTEGER NOT NULL DEFAULT 0 CHECK (is_attested IN (0, 1));
UPDATE sending_domains SET is_attested = 1 WHERE status = 'verified';

-- Verified in one account, a domain cannot be verified in another: the first one keeps it.
UPDATE sending_domains SET status = 'pending', is_attested = 0 WHERE status = 'verified' AND EXISTS (
    SELECT 1 FROM sending_domains AS earlier
    WHERE earlier.name = sending_domains.name AND earlier.status = 'verified' AND earlier.id < sending_domains.id
);
CREATE UNIQUE INDEX sending_domains_verified ON sending_domains (name) WHERE status = 'verified';
CREATE INDEX sending_domains_next_check_at ON sending_domains (next_check_at);
