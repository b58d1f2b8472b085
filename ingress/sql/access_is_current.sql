-- Whether an access token is not revoked, for an ingress that receives no notifications.
SELECT EXISTS (
    SELECT
    FROM ledger.tokens
    JOIN ledger.users ON users.id = tokens.user_id
    WHERE tokens.id = %(session_id)s::uuid
      AND tokens.revoked_at IS NULL
      AND users.id = %(user_id)s
      AND users.token_counter <= %(counter)s
      AND users.disabled_at IS NULL
) AS current
