-- The number of each account's entries before a time, by bisection of its versions: they have no
-- gaps, and time never decreases from one to the next.
WITH RECURSIVE search (account, low, high) AS (
    SELECT id, 0::bigint, version FROM ledger.accounts WHERE id = ANY(%(accounts)s)
    UNION ALL
    SELECT half.account,
           CASE WHEN entry.time < %(time)s THEN half.middle ELSE half.low END,
           CASE WHEN entry.time < %(time)s THEN half.high ELSE half.middle - 1 END
    FROM (
        SELECT account, low, high, (low + high + 1) / 2 AS middle FROM search WHERE low < high
    ) AS half
    JOIN ledger.entries AS entry
      ON entry.account = half.account AND entry.version = half.middle
)
SELECT account, low AS version FROM search WHERE low = high
