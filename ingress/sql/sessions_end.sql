UPDATE ledger.tokens
SET revoked_at = now()
WHERE id = ANY(%(ids)s::uuid[]) AND kind = 'session' AND revoked_at IS NULL
RETURNING id::text
