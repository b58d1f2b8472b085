COPY commands (
    source_offset, sequence, time, partition, transaction_id, outcome, first_status, kind, account,
    reason, detail, label, actor, trace
) FROM STDIN (FORMAT binary)
