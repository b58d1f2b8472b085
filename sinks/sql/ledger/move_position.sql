-- Moves from exactly the position that was read. Also locks the row until the batch is committed.
-- format_level is null if no record of the batch sets it.
UPDATE positions
SET next_offset = %(next_offset)s,
    sequence = %(sequence)s,
    last_hash = %(last_hash)s,
    time = to_timestamp(%(time_ms)s / 1000.0),
    format_level = coalesce(%(format_level)s, format_level)
WHERE partition = %(partition)s
    AND ledger_id = %(ledger_id)s
    AND next_offset = %(before_next_offset)s
    AND sequence = %(before_sequence)s
    AND last_hash = %(before_last_hash)s
