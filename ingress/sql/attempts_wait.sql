SELECT coalesce(
    max(extract(epoch FROM until - now())::float8 - (%(window_s)s::float8 - cost_s)), 0
) AS wait_s
FROM ledger.attempts
JOIN unnest(%(keys)s::bytea[], %(costs)s::float8[]) AS counted (key, cost_s) USING (key)
