-- The outcome of the command at a position, also if it was pending at first.
SELECT command.partition, command.source_offset AS "offset", command.outcome, command.reason,
       command.detail, command.transaction_id::text AS transaction_id, command.first_status,
       command.kind, command.account, command.label, command.actor, command.trace, command.time,
       command.sequence
FROM ledger.commands AS command
WHERE command.partition = %(partition)s AND command.source_offset = %(offset)s
