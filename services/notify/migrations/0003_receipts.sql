-- Until when a provider that reports on every SMS has to have reported on this one.
ALTER TABLE notice ADD COLUMN receipt_by timestamptz;
CREATE INDEX notice_receipt_by ON notice (receipt_by) WHERE receipt_by IS NOT NULL;
