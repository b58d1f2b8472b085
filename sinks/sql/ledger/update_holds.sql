UPDATE holds
SET captured = given.captured,
    sequence = given.sequence,
    changed_at = to_timestamp(given.changed_ms / 1000.0),
    status = given.status
FROM unnest(
    %(id)s::uuid[], %(captured)s::bigint[], %(sequence)s::bigint[], %(changed_ms)s::bigint[],
    %(status)s::ledger.hold_status[]
) AS given (id, captured, sequence, changed_ms, status)
WHERE holds.id = given.id
    AND holds.partition = %(partition)s
    AND holds.sequence < given.sequence
