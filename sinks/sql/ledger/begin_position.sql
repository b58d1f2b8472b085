-- A partition's first batch. No row is made where there is one: then another sink was first.
INSERT INTO positions (partition, ledger_id, next_offset, sequence, last_hash, time)
VALUES (
    %(partition)s, %(ledger_id)s, %(next_offset)s, %(sequence)s, %(last_hash)s,
    to_timestamp(%(time_ms)s / 1000.0)
)
ON CONFLICT (partition) DO NOTHING
