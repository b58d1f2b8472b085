SELECT partition, ledger_id, next_offset, sequence, last_hash, time
FROM ledger.positions
ORDER BY partition
