INSERT INTO ledger.attempts AS attempts (key, until)
SELECT key, now() + make_interval(secs => cost_s)
FROM unnest(%(keys)s::bytea[], %(costs)s::float8[]) AS counted (key, cost_s)
ORDER BY key -- in one order, so that concurrent counts do not deadlock
ON CONFLICT (key) DO UPDATE
SET until = least(
    now() + make_interval(secs => %(window_s)s),
    greatest(attempts.until, now()) + (excluded.until - now())
)
-- Evaluated on the current row, after concurrent counts.
WHERE attempts.until - now()
    <= make_interval(secs => %(window_s)s + %(rounding_s)s) - (excluded.until - now())
RETURNING key
