-- The schema that all tables are in, the record of the migrations, and the roles of the services.

CREATE SCHEMA ledger;

-- `name` starts with the package that owns the migration: `sinks/0001_ledger`.
CREATE TABLE ledger.migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Creates the least-privilege roles and grants what they lack; it may run again at any time. Each
-- package grants the rights on its own tables in a procedure `grant_PACKAGE_rights`, which this one
-- calls. The roles cannot sign in until `streamledger migrate` gives them a password, or a user is
-- made a member (GRANT streamledger_sink TO ...). If the owner may not create roles, a notice says
-- so: create them by hand and call this again.
CREATE PROCEDURE ledger.grant_rights() LANGUAGE plpgsql AS $$
DECLARE
    service_role text;
    package_procedure text;
BEGIN
    FOREACH service_role IN ARRAY ARRAY['streamledger_sink', 'streamledger_ingress'] LOOP
        BEGIN
            IF to_regrole(service_role) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', service_role);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database's migration created it at the same time
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'no right to create role %: create it, then CALL ledger.grant_rights()',
                    service_role;
        END;
        IF to_regrole(service_role) IS NOT NULL THEN
            EXECUTE format('GRANT USAGE ON SCHEMA ledger TO %I', service_role);
            EXECUTE format('GRANT SELECT ON ledger.migrations TO %I', service_role);
        END IF;
    END LOOP;
    FOR package_procedure IN
        SELECT proname FROM pg_proc
        WHERE pronamespace = 'ledger'::regnamespace AND proname LIKE 'grant\_%\_rights'
        ORDER BY proname
    LOOP
        EXECUTE format('CALL ledger.%I()', package_procedure);
    END LOOP;
END
$$;
