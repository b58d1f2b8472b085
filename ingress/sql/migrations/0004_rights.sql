-- The ingress keeps its own tables and only adds to the audit log. The sink has no right here.

CREATE PROCEDURE ledger.grant_ingress_rights() LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('streamledger_ingress') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE
            ON ledger.users, ledger.tokens, ledger.spent_tokens, ledger.attempts, ledger.outbox,
            ledger.wallets, ledger.jobs
            TO streamledger_ingress;
        GRANT SELECT, INSERT ON ledger.audit TO streamledger_ingress;
    END IF;
END
$$;

CALL ledger.grant_rights();
