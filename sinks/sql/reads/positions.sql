-- How far each partition's journal stands in these tables.
SELECT partition, next_offset, sequence, last_hash, time
FROM ledger.positions
ORDER BY partition
