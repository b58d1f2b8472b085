-- The outcome of the command at a position; of one that was pending, what came of it later.
SELECT asked.partition, asked.source_offset AS "offset", asked.outcome, asked.reason, asked.detail,
       asked.transaction_id::text AS transaction_id, asked.first_status, asked.kind, asked.account,
       asked.label, asked.actor, asked.trace, asked.time, asked.sequence
FROM ledger.commands AS asked
WHERE asked.partition = %(partition)s AND asked.source_offset = %(offset)s
