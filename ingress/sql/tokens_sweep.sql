DELETE FROM ledger.tokens
WHERE id IN (
    SELECT id
    FROM ledger.tokens
    WHERE coalesce(revoked_at, expires_at) < now() - make_interval(days => %(kept_days)s)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
