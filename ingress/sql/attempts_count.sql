INSERT INTO ledger.attempts AS attempts (key, until)
SELECT key, now() + make_interval(secs => cost_s)
FROM unnest(%(keys)s::bytea[], %(costs)s::float8[]) AS counted (key, cost_s)
ORDER BY key -- in one order, so that two that count at once wait for each other and no longer
ON CONFLICT (key) DO UPDATE
SET until = least(
    now() + make_interval(secs => %(window_s)s),
    greatest(attempts.until, now()) + (excluded.until - now())
)
-- Asked of the row as it is now that the others have counted.
WHERE attempts.until - now()
    <= make_interval(secs => %(window_s)s + %(rounding_s)s) - (excluded.until - now())
RETURNING key
