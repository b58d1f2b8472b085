-- A partition's first batch. It inserts nothing if another sink was first.
INSERT INTO positions (
    partition, ledger_id, next_offset, sequence, last_hash, time, format_level
)
VALUES (
    %(partition)s, %(ledger_id)s, %(next_offset)s, %(sequence)s, %(last_hash)s,
    to_timestamp(%(time_ms)s / 1000.0), %(format_level)s
)
ON CONFLICT (partition) DO NOTHING
