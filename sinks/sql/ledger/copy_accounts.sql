COPY accounts (
    balance, held, incoming, version, sequence, min_balance, opened_at, type, status, partition,
    currency, id, owner, metadata
) FROM STDIN (FORMAT binary)
