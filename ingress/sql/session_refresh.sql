-- Replaces a refresh token by the next one. Keeps the used one to detect its reuse. Returns the
-- user's current role and revocation counter.
WITH refreshed AS (
    UPDATE ledger.tokens
    SET hash = %(new)s, refresh_salt = %(salt)s, last_used_at = now(),
        expires_at = now() + make_interval(secs => %(ttl_s)s)
    FROM ledger.users
    WHERE tokens.hash = %(old)s
      AND tokens.kind = 'session'
      AND tokens.revoked_at IS NULL
      AND tokens.expires_at > now()
      AND users.id = tokens.user_id
      AND users.disabled_at IS NULL
    RETURNING tokens.id AS session_id, users.id, users.number, users.role, users.token_counter
), spent AS (
    INSERT INTO ledger.spent_tokens (hash, session_id)
    SELECT %(old)s, session_id FROM refreshed
)
SELECT session_id::text, id, number, role, token_counter FROM refreshed
