-- The command that owns a transaction id.
SELECT command.partition, command.source_offset AS "offset", command.outcome, command.reason,
       command.detail, command.transaction_id::text AS transaction_id, command.first_status,
       command.kind, command.account, command.label, command.actor, command.trace, command.time,
       command.sequence
FROM ledger.transactions AS tx
JOIN ledger.commands AS command
  ON command.partition = tx.partition AND command.source_offset = tx.source_offset
WHERE tx.id = %(id)s::uuid
