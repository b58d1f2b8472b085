-- Up to where the tables have each partition's journal.
SELECT partition, next_offset, sequence, last_hash, time
FROM ledger.positions
ORDER BY partition
