-- Creates an API key if the user is enabled and the verified password is still the current one.
-- The lock is that of session_begin.sql.
WITH owner AS (
    SELECT id
    FROM ledger.users
    WHERE id = %(user_id)s
      AND password_hash = %(verified)s
      AND disabled_at IS NULL
    FOR NO KEY UPDATE
)
INSERT INTO ledger.tokens (hash, kind, user_id, name, scopes, created_at, expires_at)
SELECT %(hash)s, 'api_key', id, %(name)s, %(scopes)s, clock_timestamp(),
       coalesce(%(expires_at)s, now() + make_interval(secs => %(ttl_s)s))
FROM owner
RETURNING id::text, name, scopes, created_at, last_used_at, expires_at
