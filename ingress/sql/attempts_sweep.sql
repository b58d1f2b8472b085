DELETE FROM ledger.attempts
WHERE key IN (
    SELECT key FROM ledger.attempts WHERE until < now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
