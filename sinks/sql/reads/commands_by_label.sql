-- A label is not unique. Latest first.
SELECT command.partition, command.source_offset AS "offset", command.outcome, command.reason,
       command.detail, command.transaction_id::text AS transaction_id, command.first_status,
       command.kind, command.account, command.label, command.actor, command.trace, command.time,
       command.sequence
FROM ledger.commands AS command
WHERE command.label = %(label)s
  AND command.account = %(account)s -- if account
ORDER BY command.time DESC, command.sequence DESC, command.partition DESC
LIMIT %(limit)s
