SELECT session_id::text AS id, user_id
FROM ledger.spent_tokens
JOIN ledger.tokens ON tokens.id = session_id
WHERE spent_tokens.hash = %(hash)s
