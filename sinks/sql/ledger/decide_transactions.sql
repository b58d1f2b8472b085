-- What became of transactions that were pending before the batch.
UPDATE transactions
SET status = given.status,
    reason = given.reason,
    decided_sequence = given.sequence,
    decided_at = to_timestamp(given.time_ms / 1000.0),
    fee = given.fee,
    commission_bps = given.commission_bps
FROM unnest(
    %(id)s::uuid[], %(status)s::ledger.transaction_status[], %(reason)s::text[],
    %(sequence)s::bigint[], %(time_ms)s::bigint[], %(fee)s::bigint[], %(commission_bps)s::integer[]
) AS given (id, status, reason, sequence, time_ms, fee, commission_bps)
WHERE transactions.id = given.id
    AND transactions.partition = %(partition)s
    AND transactions.status = 'pending'
    AND transactions.sequence < given.sequence
