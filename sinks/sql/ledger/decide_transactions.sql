-- Outcomes of transactions that were pending before the batch.
UPDATE transactions
SET status = batch.status,
    reason = batch.reason,
    decided_sequence = batch.sequence,
    decided_at = to_timestamp(batch.time_ms / 1000.0),
    fee = batch.fee,
    commission_bps = batch.commission_bps
FROM unnest(
    %(id)s::uuid[], %(status)s::ledger.transaction_status[], %(reason)s::text[],
    %(sequence)s::bigint[], %(time_ms)s::bigint[], %(fee)s::bigint[], %(commission_bps)s::integer[]
) AS batch (id, status, reason, sequence, time_ms, fee, commission_bps)
WHERE transactions.id = batch.id
    AND transactions.partition = %(partition)s
    AND transactions.status = 'pending'
    AND transactions.sequence < batch.sequence
