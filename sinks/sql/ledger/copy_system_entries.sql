COPY system_entries (
    version, amount, sequence, time, transaction_id, direction, partition, account, balance
) FROM STDIN (FORMAT binary)
