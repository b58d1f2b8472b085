-- Transactions by the log time of their commands. Those of several accounts, or of all, are
-- searched in a window of time, which is small if there are many.
SELECT id::text AS id, kind, status, reason, account, counterparty, amount, fee, commission_bps,
       label, reference, description, actor, external_id, coalesce(metadata, '{}') AS metadata,
       hold_id::text AS hold_id, reverses::text AS reverses, reversed_by::text AS reversed_by,
       time, decided_at, effective_at, partition, source_offset, sequence, decided_sequence
FROM ledger.transactions
WHERE true
  AND account = %(account)s -- if account
  AND account = ANY(%(accounts)s) -- if accounts
  AND time >= %(since)s -- if since
  AND time < %(until)s -- if until
  AND (time, sequence, partition) < (%(older_time)s, %(older_sequence)s, %(older_partition)s) -- if older_time
  AND (time, sequence, partition) > (%(newer_time)s, %(newer_sequence)s, %(newer_partition)s) -- if newer_time
  AND time <= %(older_time)s -- if older_time
  AND time >= %(newer_time)s -- if newer_time
  AND kind = ANY(%(kinds)s) -- if kinds
  AND status = ANY(%(statuses)s::ledger.transaction_status[]) -- if statuses
  AND reference = %(reference)s -- if reference
  AND actor = %(actor)s -- if actor
  AND amount >= %(min_amount)s -- if min_amount
  AND amount <= %(max_amount)s -- if max_amount
ORDER BY time DESC, sequence DESC, partition DESC -- unless newer_time
ORDER BY time, sequence, partition -- if newer_time
LIMIT %(limit)s
OFFSET %(offset)s -- if offset
