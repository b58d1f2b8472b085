-- People as the API knows them: an integer id beside the uuid that accounts name as their owner,
-- addresses that are the same however they are written, the wallets that were opened for them, and
-- the refresh tokens that were used.

-- `id` is a uuid; `number` the integer id. Addresses are ASCII and compared without case, in every
-- locale alike. Access tokens made before `valid_from` are not taken.
ALTER TABLE ledger.users RENAME COLUMN name TO first_name;
ALTER TABLE ledger.users
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN last_name text NOT NULL DEFAULT '',
    ADD COLUMN valid_from timestamptz NOT NULL DEFAULT '-infinity',
    ADD CONSTRAINT role_is_known CHECK (role IN ('user', 'operator', 'auditor', 'admin'));
DROP INDEX ledger.users_by_email;
CREATE UNIQUE INDEX users_by_email ON ledger.users (lower(email COLLATE "C"));
CREATE INDEX users_by_valid_from ON ledger.users (valid_from) WHERE valid_from > '-infinity';

-- A session's `hash` is that of the one refresh token, or cookie, that may be used next.
ALTER TABLE ledger.tokens
    ADD COLUMN user_agent text NOT NULL DEFAULT '',
    ADD COLUMN address inet;
CREATE INDEX tokens_by_revoked ON ledger.tokens (revoked_at) WHERE revoked_at IS NOT NULL;

-- Refresh tokens that were used. One that comes again was copied: its session ends.
CREATE TABLE ledger.spent_tokens (
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES ledger.tokens ON DELETE CASCADE,
    spent_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX spent_tokens_by_session ON ledger.spent_tokens (session_id);

-- The wallets that were asked for over HTTP, each with a row in `outbox`, made together. It is open
-- once `accounts` has it.
CREATE TABLE ledger.wallets (
    id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES ledger.users,
    currency text COLLATE "C" NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX wallets_by_user ON ledger.wallets (user_id, created_at);
CREATE UNIQUE INDEX wallets_default ON ledger.wallets (user_id) WHERE is_default;

CREATE OR REPLACE PROCEDURE ledger.grant_rights() LANGUAGE plpgsql AS $$
DECLARE
    books constant text := 'ledger.positions, ledger.accounts, ledger.system_accounts,'
        ' ledger.entries, ledger.system_entries, ledger.transactions, ledger.holds,'
        ' ledger.commands';
    own constant text := 'ledger.users, ledger.tokens, ledger.spent_tokens, ledger.wallets,'
        ' ledger.outbox, ledger.jobs';
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
