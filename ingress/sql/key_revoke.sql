UPDATE ledger.tokens
SET revoked_at = now()
WHERE id = %(id)s AND user_id = %(user_id)s AND kind = 'api_key' AND revoked_at IS NULL
