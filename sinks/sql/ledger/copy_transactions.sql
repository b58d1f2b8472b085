COPY transactions (
    sequence, source_offset, fee, time, commission_bps, partition, decided_sequence, amount,
    decided_at, effective_at, id, hold_id, reverses, reversed_by, status, kind, account,
    counterparty, reason, label, reference, description, actor, external_id, metadata
) FROM STDIN (FORMAT binary)
