-- Holds of all accounts in the order in which they were placed: each by the transaction that placed
-- it, which has its id and its time and is looked for in a window of time.
SELECT hold.id::text AS id, hold.account, hold.currency, hold.status, hold.amount, hold.captured,
       hold.placed_at, hold.changed_at, hold.expires_at, hold.partition, hold.sequence
FROM ledger.transactions AS made
JOIN ledger.holds AS hold ON hold.id = made.id
WHERE made.kind = 'hold'
  AND made.time >= %(since)s
  AND made.time < %(until)s
  AND hold.status = ANY(%(statuses)s::ledger.hold_status[])
  AND (made.time, made.id) < (%(older_time)s, %(older_id)s::uuid) -- if older_time
  AND (made.time, made.id) > (%(newer_time)s, %(newer_id)s::uuid) -- if newer_time
  AND made.time <= %(older_time)s -- if older_time
  AND made.time >= %(newer_time)s -- if newer_time
ORDER BY made.time DESC, made.id DESC -- unless newer_time
ORDER BY made.time, made.id -- if newer_time
LIMIT %(limit)s
