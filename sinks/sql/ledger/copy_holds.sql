COPY holds (
    amount, captured, sequence, placed_at, changed_at, expires_at, id, status, partition, account,
    currency
) FROM STDIN (FORMAT binary)
