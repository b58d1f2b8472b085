-- Access tokens are revoked by a counter in the user's row. A token carries the value that it was
-- made under, and one with a lower value is not accepted: no two clocks are compared.

DROP INDEX ledger.users_by_valid_from;
ALTER TABLE ledger.users DROP COLUMN valid_from;
ALTER TABLE ledger.users
    ADD COLUMN token_counter bigint NOT NULL DEFAULT 0,
    -- When the counter was raised last: older raises concern expired tokens only.
    ADD COLUMN tokens_revoked_at timestamptz;
CREATE INDEX users_by_tokens_revoked ON ledger.users (tokens_revoked_at)
    WHERE tokens_revoked_at IS NOT NULL;

-- Every session and API key expires.
UPDATE ledger.tokens SET expires_at = now() + interval '90 days' WHERE expires_at IS NULL;
ALTER TABLE ledger.tokens ALTER COLUMN expires_at SET NOT NULL;
