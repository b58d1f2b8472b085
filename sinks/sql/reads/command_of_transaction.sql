-- The command that owns a transaction id.
SELECT asked.partition, asked.source_offset AS "offset", asked.outcome, asked.reason, asked.detail,
       asked.transaction_id::text AS transaction_id, asked.first_status, asked.kind, asked.account,
       asked.label, asked.actor, asked.trace, asked.time, asked.sequence
FROM ledger.transactions AS made
JOIN ledger.commands AS asked
  ON asked.partition = made.partition AND asked.source_offset = made.source_offset
WHERE made.id = %(id)s::uuid
