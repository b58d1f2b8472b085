-- A label identifies nothing: there may be many of it, the latest first.
SELECT asked.partition, asked.source_offset AS "offset", asked.outcome, asked.reason, asked.detail,
       asked.transaction_id::text AS transaction_id, asked.first_status, asked.kind, asked.account,
       asked.label, asked.actor, asked.trace, asked.time, asked.sequence
FROM ledger.commands AS asked
WHERE asked.label = %(label)s
  AND asked.account = %(account)s -- if account
ORDER BY asked.time DESC, asked.sequence DESC, asked.partition DESC
LIMIT %(limit)s
