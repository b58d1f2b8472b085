-- An account's entries between two versions, with columns of their transactions. Those may be null
-- for a moment: the transaction's row may be in another partition.
SELECT entry.account, entry.version, entry.direction, entry.amount, entry.balance, entry.held,
       entry.time, entry.partition, entry.sequence, entry.transaction_id::text AS transaction_id,
       tx.kind, tx.status, tx.account AS from_account, tx.counterparty, tx.fee,
       tx.label, tx.external_id, tx.actor, tx.reference, tx.description, tx.metadata,
       tx.reverses::text AS reverses, tx.reversed_by::text AS reversed_by
FROM ledger.entries AS entry
LEFT JOIN ledger.transactions AS tx ON tx.id = entry.transaction_id
WHERE entry.account = %(account)s
  AND entry.version > %(after)s
  AND entry.version <= %(last)s
  AND entry.direction = %(direction)s::ledger.direction -- if direction
  AND entry.amount >= %(min_amount)s -- if min_amount
  AND entry.amount <= %(max_amount)s -- if max_amount
  AND tx.kind = ANY(%(kinds)s) -- if kinds
  AND tx.status = ANY(%(statuses)s::ledger.transaction_status[]) -- if statuses
  AND tx.reference = %(reference)s -- if reference
  AND tx.actor = %(actor)s -- if actor
ORDER BY entry.version DESC -- unless oldest_first
ORDER BY entry.version -- if oldest_first
LIMIT %(limit)s
OFFSET %(offset)s -- if offset
