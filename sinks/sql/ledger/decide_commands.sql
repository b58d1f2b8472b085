-- Outcomes of the commands of these transactions.
UPDATE commands
SET outcome = batch.outcome,
    reason = batch.reason,
    detail = batch.detail
FROM unnest(
    %(id)s::uuid[], %(source_offset)s::bigint[], %(status)s::ledger.command_outcome[],
    %(reason)s::text[], %(detail)s::text[]
) AS batch (transaction_id, source_offset, outcome, reason, detail)
WHERE commands.partition = %(partition)s
    AND commands.source_offset = batch.source_offset
    AND commands.transaction_id = batch.transaction_id
    AND commands.outcome = 'pending'
