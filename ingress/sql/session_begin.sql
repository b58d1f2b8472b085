-- Creates a session if the user is enabled and the verified password is still the current one.
-- The lock excludes concurrent changes of either, and concurrent sign-ins of the user.
WITH owner AS (
    SELECT id, number, email, first_name, last_name, role, created_at, token_counter
    FROM ledger.users
    WHERE id = %(user_id)s
      AND password_hash = %(verified)s
      AND disabled_at IS NULL
    FOR NO KEY UPDATE
), begun AS (
    INSERT INTO ledger.tokens (hash, kind, user_id, created_at, expires_at, last_used_at,
                               user_agent, address)
    -- The clock, not the transaction's time, so that sessions are ordered by the lock.
    SELECT %(hash)s, 'session', id, clock_timestamp(), now() + make_interval(secs => %(ttl_s)s),
           now(), %(user_agent)s, %(address)s
    FROM owner
    RETURNING id
)
SELECT begun.id::text AS session_id, owner.id, number, email, first_name, last_name, role,
       false AS disabled, created_at, token_counter
FROM owner CROSS JOIN begun
