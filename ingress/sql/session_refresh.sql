-- The next token in the place of the one that is used now, which is kept to be known again.
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
    RETURNING tokens.id, tokens.user_id
), spent AS (
    INSERT INTO ledger.spent_tokens (hash, session_id)
    SELECT %(old)s, id FROM refreshed
)
SELECT id::text AS session_id, user_id FROM refreshed
