-- Holds of some accounts, latest first: read by account and status in index order, then merged.
SELECT hold.*
FROM unnest(%(accounts)s::text[]) AS named (account)
CROSS JOIN unnest(%(statuses)s::ledger.hold_status[]) AS wanted (status)
CROSS JOIN LATERAL (
    SELECT id::text AS id, account, currency, status, amount, captured, placed_at, changed_at,
           expires_at, partition, sequence
    FROM ledger.holds
    WHERE holds.account = named.account
      AND status = wanted.status
      AND (placed_at, id) < (%(older_time)s, %(older_id)s::uuid) -- if older_time
      AND (placed_at, id) > (%(newer_time)s, %(newer_id)s::uuid) -- if newer_time
      AND placed_at <= %(older_time)s -- if older_time
      AND placed_at >= %(newer_time)s -- if newer_time
    ORDER BY placed_at DESC, holds.id DESC -- unless newer_time
    ORDER BY placed_at, holds.id -- if newer_time
    LIMIT %(limit)s
) AS hold
ORDER BY hold.placed_at DESC, hold.id COLLATE "C" DESC -- unless newer_time
ORDER BY hold.placed_at, hold.id COLLATE "C" -- if newer_time
LIMIT %(limit)s
