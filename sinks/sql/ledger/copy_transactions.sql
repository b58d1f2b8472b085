COPY transactions (
    sequence, source_offset, fee, decided_sequence, amount, time, decided_at, effective_at, id,
    hold_id, reverses, reversed_by, status, commission_bps, partition, kind, account, counterparty,
    reason, label, reference, description, actor, external_id, metadata
) FROM STDIN (FORMAT binary)
