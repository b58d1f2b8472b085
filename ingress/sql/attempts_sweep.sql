DELETE FROM ledger.attempts
WHERE key IN (
    SELECT key FROM ledger.attempts WHERE until < now() LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
