-- The audit log is read by time, action and subject, page by page, and tells by which API key
-- something was done. A row may stand for several events of one kind: `count` says how many.

ALTER TABLE ledger.audit
    ADD COLUMN key_id text COLLATE "C",
    ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);

DROP INDEX ledger.audit_by_user;
DROP INDEX ledger.audit_by_time;
CREATE INDEX audit_by_time ON ledger.audit (time, id);
CREATE INDEX audit_by_user ON ledger.audit (user_id, time, id);
CREATE INDEX audit_by_action ON ledger.audit (action, time, id);
CREATE INDEX audit_by_subject ON ledger.audit (subject, time, id);
