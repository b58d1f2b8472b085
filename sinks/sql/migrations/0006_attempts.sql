-- Wrong passwords are counted here, so that every ingress counts alike and none forgets by a restart.

-- Each wrong password moves `until` on by the same time, from now or from where it is; how far it
-- lies ahead of now is how many there were lately. A row whose `until` is past counts nothing. What
-- is counted (an address, a user) is kept as a keyed hash: people type passwords into wrong fields.
CREATE TABLE ledger.attempts (
    key bytea PRIMARY KEY,
    until timestamptz NOT NULL
);

-- Whether somebody has signed in from an address before.
CREATE INDEX tokens_by_address ON ledger.tokens (user_id, address) WHERE kind = 'session';

CREATE OR REPLACE PROCEDURE ledger.grant_rights() LANGUAGE plpgsql AS $$
DECLARE
    books constant text := 'ledger.positions, ledger.accounts, ledger.system_accounts,'
        ' ledger.entries, ledger.system_entries, ledger.transactions, ledger.holds,'
        ' ledger.commands';
    own constant text := 'ledger.users, ledger.tokens, ledger.spent_tokens, ledger.wallets,'
        ' ledger.outbox, ledger.jobs, ledger.attempts';
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
