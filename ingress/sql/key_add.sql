INSERT INTO ledger.tokens (hash, kind, user_id, name, scopes, expires_at)
SELECT %(hash)s, 'api_key', %(user_id)s, %(name)s, %(scopes)s, %(expires_at)s
WHERE (SELECT count(*) FROM ledger.tokens
       WHERE user_id = %(user_id)s AND kind = 'api_key' AND revoked_at IS NULL) < %(most)s
RETURNING id::text, name, scopes, created_at, last_used_at, expires_at
