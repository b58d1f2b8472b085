-- Accounts by id, of one owner or of all.
SELECT id, type, currency, status, owner, min_balance, balance, held, incoming, available, version,
       partition, sequence, opened_at, coalesce(metadata, '{}') AS metadata
FROM ledger.accounts
WHERE true
  AND owner = %(owner)s -- if owner
  AND currency = %(currency)s -- if currency
  AND type = ANY(%(types)s::ledger.account_type[]) -- if types
  AND status = ANY(%(statuses)s::ledger.account_status[]) -- if statuses
  AND id > %(after)s -- if after
  AND id < %(before)s -- if before
ORDER BY id -- unless before
ORDER BY id DESC -- if before
LIMIT %(limit)s
