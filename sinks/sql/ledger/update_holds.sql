UPDATE holds
SET captured = batch.captured,
    sequence = batch.sequence,
    changed_at = to_timestamp(batch.changed_ms / 1000.0),
    status = batch.status
FROM unnest(
    %(id)s::uuid[], %(captured)s::bigint[], %(sequence)s::bigint[], %(changed_ms)s::bigint[],
    %(status)s::ledger.hold_status[]
) AS batch (id, captured, sequence, changed_ms, status)
WHERE holds.id = batch.id
    AND holds.partition = %(partition)s
    AND holds.sequence < batch.sequence
