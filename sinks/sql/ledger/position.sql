SELECT ledger_id, next_offset, sequence, last_hash
FROM positions
WHERE partition = %(partition)s
