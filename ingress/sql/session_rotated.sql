-- The session whose refresh token was just used, with the salt that the next token derives from.
SELECT tokens.id::text AS session_id, users.id, users.number, users.role, users.token_counter,
       tokens.hash, tokens.refresh_salt AS salt
FROM ledger.spent_tokens
JOIN ledger.tokens ON tokens.id = spent_tokens.session_id
JOIN ledger.users ON users.id = tokens.user_id
WHERE spent_tokens.hash = %(old)s
  AND spent_tokens.spent_at > now() - make_interval(secs => %(within_s)s)
  AND tokens.revoked_at IS NULL
  AND tokens.expires_at > now()
  AND users.disabled_at IS NULL
