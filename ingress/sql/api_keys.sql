SELECT id::text, name, scopes, created_at, last_used_at, expires_at
FROM ledger.tokens
WHERE user_id = %(user_id)s AND kind = 'api_key' AND revoked_at IS NULL AND expires_at > now()
ORDER BY created_at DESC, id
