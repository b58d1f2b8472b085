-- Roles with least rights: the sink writes the books, the ingress reads them and keeps its own
-- tables. They cannot sign in; a user of the database is made a member (GRANT streamledger_sink TO
-- ...). Where the migrator may not make roles they are left out, and told of: make them by hand and
-- call this again. Calling it again changes nothing that is right.

CREATE PROCEDURE ledger.grant_rights() LANGUAGE plpgsql AS $$
DECLARE
    books constant text := 'ledger.positions, ledger.accounts, ledger.system_accounts,'
        ' ledger.entries, ledger.system_entries, ledger.transactions, ledger.holds,'
        ' ledger.commands';
    own constant text := 'ledger.users, ledger.tokens, ledger.outbox, ledger.jobs';
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['streamledger_sink', 'streamledger_ingress'] LOOP
        BEGIN
            IF to_regrole(wanted) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database's migration made it at the same time
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role %: may not be made; make it, then CALL ledger.grant_rights()',
                    wanted;
        END;
    END LOOP;
    IF to_regrole('streamledger_sink') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA ledger TO streamledger_sink;
        GRANT SELECT ON ledger.migrations TO streamledger_sink;
        EXECUTE 'GRANT SELECT, INSERT, UPDATE ON ' || books || ' TO streamledger_sink';
    END IF;
    IF to_regrole('streamledger_ingress') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA ledger TO streamledger_ingress;
        GRANT SELECT ON ledger.migrations, ledger.all_entries TO streamledger_ingress;
        EXECUTE 'GRANT SELECT ON ' || books || ' TO streamledger_ingress';
        EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ' || own || ' TO streamledger_ingress';
        GRANT SELECT, INSERT ON ledger.audit TO streamledger_ingress;
    END IF;
END
$$;

CALL ledger.grant_rights();
