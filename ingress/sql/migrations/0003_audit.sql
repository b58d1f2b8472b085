-- The audit log: who did what over HTTP. Rows are only ever added. `key_id` is the API key that was
-- used. A row may stand for `count` events of one kind. The log is read by time, user, action and
-- subject, page by page.

CREATE TABLE ledger.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time timestamptz NOT NULL DEFAULT now(),
    user_id text COLLATE "C",
    action text COLLATE "C" NOT NULL,
    subject text COLLATE "C",
    address inet,
    trace text COLLATE "C",
    detail jsonb NOT NULL DEFAULT '{}',
    key_id text COLLATE "C",
    count integer NOT NULL DEFAULT 1 CHECK (count > 0)
);
CREATE INDEX audit_by_time ON ledger.audit (time, id);
CREATE INDEX audit_by_user ON ledger.audit (user_id, time, id);
CREATE INDEX audit_by_action ON ledger.audit (action, time, id);
CREATE INDEX audit_by_subject ON ledger.audit (subject, time, id);
