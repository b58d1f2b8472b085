SELECT id, command::text AS command
FROM ledger.outbox
WHERE sent_at IS NULL
ORDER BY id
LIMIT %(most)s
FOR UPDATE SKIP LOCKED
