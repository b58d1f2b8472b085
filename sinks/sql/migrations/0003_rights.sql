-- The sink writes the read model and deletes nothing; the ingress only reads it.

CREATE PROCEDURE ledger.grant_sinks_rights() LANGUAGE plpgsql AS $$
DECLARE
    read_model constant text := 'ledger.positions, ledger.accounts, ledger.system_accounts,'
        ' ledger.entries, ledger.system_entries, ledger.transactions, ledger.holds,'
        ' ledger.commands';
BEGIN
    IF to_regrole('streamledger_sink') IS NOT NULL THEN
        EXECUTE 'GRANT SELECT, INSERT, UPDATE ON ' || read_model || ' TO streamledger_sink';
    END IF;
    IF to_regrole('streamledger_ingress') IS NOT NULL THEN
        EXECUTE 'GRANT SELECT ON ledger.all_entries, ' || read_model || ' TO streamledger_ingress';
    END IF;
END
$$;

CALL ledger.grant_rights();
