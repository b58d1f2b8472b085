COPY commands (
    source_offset, sequence, time, transaction_id, outcome, first_status, partition, kind, account,
    reason, detail, label, actor, trace
) FROM STDIN (FORMAT binary)
