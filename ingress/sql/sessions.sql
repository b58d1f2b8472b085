SELECT id::text, created_at, last_used_at, expires_at, user_agent, host(address) AS address
FROM ledger.tokens
WHERE user_id = %(user_id)s AND kind = 'session' AND revoked_at IS NULL AND expires_at > now()
ORDER BY created_at DESC, id
