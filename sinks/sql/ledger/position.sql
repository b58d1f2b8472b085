SELECT ledger_id, format_level, next_offset, sequence, last_hash
FROM positions
WHERE partition = %(partition)s
