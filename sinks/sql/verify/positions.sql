SELECT partition, ledger_id, next_offset, sequence, last_hash, time, format_level
FROM ledger.positions
ORDER BY partition
