-- The outcomes of their commands.
UPDATE commands
SET outcome = given.outcome,
    reason = given.reason,
    detail = given.detail
FROM unnest(
    %(id)s::uuid[], %(source_offset)s::bigint[], %(status)s::ledger.command_outcome[],
    %(reason)s::text[], %(detail)s::text[]
) AS given (transaction_id, source_offset, outcome, reason, detail)
WHERE commands.partition = %(partition)s
    AND commands.source_offset = given.source_offset
    AND commands.transaction_id = given.transaction_id
    AND commands.outcome = 'pending'
