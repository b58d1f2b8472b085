-- Revokes a user's access tokens and ends tokens of the given kinds, with one notification. An
-- earlier statement of the transaction locked the user's row, so this one sees every session.
WITH owner AS (
    UPDATE ledger.users
    SET token_counter = token_counter + 1, tokens_revoked_at = now()
    WHERE id = %(id)s
    RETURNING id, token_counter
), ended AS (
    UPDATE ledger.tokens
    SET revoked_at = now()
    WHERE user_id = %(id)s
      AND kind = ANY(%(kinds)s::ledger.token_kind[])
      AND revoked_at IS NULL
      AND expires_at > now()
)
SELECT pg_notify(%(channel)s, concat_ws(' ', 'user', id, token_counter)) FROM owner
