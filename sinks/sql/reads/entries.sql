-- An account's entries between two versions, each with what is known of its transaction; another
-- partition's row may come a moment later.
SELECT entry.account, entry.version, entry.direction, entry.amount, entry.balance, entry.held,
       entry.time, entry.partition, entry.sequence, entry.transaction_id::text AS transaction_id,
       made.kind, made.status, made.account AS from_account, made.counterparty, made.fee,
       made.label, made.external_id, made.actor, made.reference, made.description, made.metadata,
       made.reverses::text AS reverses, made.reversed_by::text AS reversed_by
FROM ledger.entries AS entry
LEFT JOIN ledger.transactions AS made ON made.id = entry.transaction_id
WHERE entry.account = %(account)s
  AND entry.version > %(after)s
  AND entry.version <= %(last)s
  AND entry.direction = %(direction)s::ledger.direction -- if direction
  AND entry.amount >= %(min_amount)s -- if min_amount
  AND entry.amount <= %(max_amount)s -- if max_amount
  AND made.kind = ANY(%(kinds)s) -- if kinds
  AND made.status = ANY(%(statuses)s::ledger.transaction_status[]) -- if statuses
  AND made.reference = %(reference)s -- if reference
  AND made.actor = %(actor)s -- if actor
ORDER BY entry.version DESC -- unless oldest_first
ORDER BY entry.version -- if oldest_first
LIMIT %(limit)s
OFFSET %(offset)s -- if offset
