-- The holder of a token that is valid now. Records its use at intervals.
WITH used AS (
    UPDATE ledger.tokens
    SET last_used_at = now()
    WHERE hash = %(hash)s
      AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %(used_every_s)s))
)
SELECT tokens.id::text AS session_id,
       tokens.kind::text AS kind,
       users.id AS user_id,
       users.number,
       users.role,
       tokens.scopes,
       extract(epoch FROM tokens.expires_at - now())::double precision AS expires_in_s
FROM ledger.tokens
JOIN ledger.users ON users.id = tokens.user_id
WHERE tokens.hash = %(hash)s
  AND tokens.revoked_at IS NULL
  AND tokens.expires_at > now()
  AND users.disabled_at IS NULL
