-- Revocations so recent that an older access token may still be valid.
SELECT 'session' AS kind, id::text AS id, 0 AS counter
FROM ledger.tokens
WHERE kind = 'session' AND revoked_at > now() - make_interval(secs => %(kept_s)s)
UNION ALL
SELECT 'user', id, token_counter
FROM ledger.users
WHERE tokens_revoked_at > now() - make_interval(secs => %(kept_s)s)
