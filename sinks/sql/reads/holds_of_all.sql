-- Holds of all accounts, by the time of the transaction that placed them, which has the hold's id.
-- It is searched in a window of time.
SELECT hold.id::text AS id, hold.account, hold.currency, hold.status, hold.amount, hold.captured,
       hold.placed_at, hold.changed_at, hold.expires_at, hold.partition, hold.sequence
FROM ledger.transactions AS tx
JOIN ledger.holds AS hold ON hold.id = tx.id
WHERE tx.kind = 'hold'
  AND tx.time >= %(since)s
  AND tx.time < %(until)s
  AND hold.status = ANY(%(statuses)s::ledger.hold_status[])
  AND (tx.time, tx.id) < (%(older_time)s, %(older_id)s::uuid) -- if older_time
  AND (tx.time, tx.id) > (%(newer_time)s, %(newer_id)s::uuid) -- if newer_time
  AND tx.time <= %(older_time)s -- if older_time
  AND tx.time >= %(newer_time)s -- if newer_time
ORDER BY tx.time DESC, tx.id DESC -- unless newer_time
ORDER BY tx.time, tx.id -- if newer_time
LIMIT %(limit)s
