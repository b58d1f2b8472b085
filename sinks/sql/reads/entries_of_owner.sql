-- The entries of an owner's accounts between two versions of each, with columns of their
-- transactions, which may be null for a moment. A transaction between several of the accounts is
-- listed once: from the side of the command's account, otherwise of the first by id. If an account
-- has more entries than its window (an edge), rows beyond the nearest edge in time are left out:
-- entries of another account may precede them.
SELECT entry.*
FROM unnest(%(accounts)s::text[], %(after)s::bigint[], %(last)s::bigint[])
     AS wanted (account, after, last)
CROSS JOIN LATERAL (
    SELECT entry.account, entry.version, entry.direction, entry.amount, entry.balance, entry.held,
           entry.time, entry.partition, entry.sequence,
           entry.transaction_id::text AS transaction_id,
           tx.kind, tx.status, tx.account AS from_account, tx.counterparty, tx.fee,
           tx.label, tx.external_id, tx.actor, tx.reference, tx.description, tx.metadata,
           tx.reverses::text AS reverses, tx.reversed_by::text AS reversed_by
    FROM ledger.entries AS entry
    LEFT JOIN ledger.transactions AS tx ON tx.id = entry.transaction_id
    WHERE entry.account = wanted.account
      AND entry.version > wanted.after
      AND entry.version <= wanted.last
      AND entry.direction = %(direction)s::ledger.direction -- if direction
      AND entry.amount >= %(min_amount)s -- if min_amount
      AND entry.amount <= %(max_amount)s -- if max_amount
      AND tx.kind = ANY(%(kinds)s) -- if kinds
      AND tx.status = ANY(%(statuses)s::ledger.transaction_status[]) -- if statuses
      AND tx.reference = %(reference)s -- if reference
      AND tx.actor = %(actor)s -- if actor
      AND NOT EXISTS (
          SELECT FROM ledger.entries AS other
          WHERE other.transaction_id = entry.transaction_id
            AND other.account = ANY(%(accounts)s::text[])
            AND (other.account IS DISTINCT FROM tx.account, other.account)
                < (entry.account IS DISTINCT FROM tx.account, entry.account)
      )
    ORDER BY entry.version DESC -- unless oldest_first
    ORDER BY entry.version -- if oldest_first
    LIMIT %(reach)s
) AS entry
WHERE coalesce(
    (entry.time, entry.account, entry.version) > ( -- unless oldest_first
    (entry.time, entry.account, entry.version) < ( -- if oldest_first
        SELECT edge.time, edge.account, edge.version
        FROM unnest(%(edge_accounts)s::text[], %(edge_versions)s::bigint[])
             AS nearest (account, version)
        JOIN ledger.entries AS edge
          ON edge.account = nearest.account AND edge.version = nearest.version
        ORDER BY edge.time DESC, edge.account DESC, edge.version DESC -- unless oldest_first
        ORDER BY edge.time, edge.account, edge.version -- if oldest_first
        LIMIT 1
    ),
    true
)
ORDER BY entry.time DESC, entry.account DESC, entry.version DESC -- unless oldest_first
ORDER BY entry.time, entry.account, entry.version -- if oldest_first
LIMIT %(limit)s
OFFSET %(offset)s -- if offset
