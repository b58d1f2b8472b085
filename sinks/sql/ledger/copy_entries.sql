COPY entries (
    version, amount, balance, held, sequence, time, transaction_id, direction, partition, account
) FROM STDIN (FORMAT binary)
