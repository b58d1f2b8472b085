-- The entries of an owner's accounts between two versions of each, with what is known of their
-- transactions; another partition's row may come a moment later. A transaction between several of the
-- accounts is there once: from the side of the one whose command it was, else of the least. Where
-- an account has more (an edge), what comes after the nearest of those in time is left out: another
-- account may have its place.
SELECT entry.*
FROM unnest(%(accounts)s::text[], %(after)s::bigint[], %(last)s::bigint[])
     AS wanted (account, after, last)
CROSS JOIN LATERAL (
    SELECT entry.account, entry.version, entry.direction, entry.amount, entry.balance, entry.held,
           entry.time, entry.partition, entry.sequence,
           entry.transaction_id::text AS transaction_id,
           made.kind, made.status, made.account AS from_account, made.counterparty, made.fee,
           made.label, made.external_id, made.actor, made.reference, made.description, made.metadata,
           made.reverses::text AS reverses, made.reversed_by::text AS reversed_by
    FROM ledger.entries AS entry
    LEFT JOIN ledger.transactions AS made ON made.id = entry.transaction_id
    WHERE entry.account = wanted.account
      AND entry.version > wanted.after
      AND entry.version <= wanted.last
      AND entry.direction = %(direction)s::ledger.direction -- if direction
      AND entry.amount >= %(min_amount)s -- if min_amount
      AND entry.amount <= %(max_amount)s -- if max_amount
      AND made.kind = ANY(%(kinds)s) -- if kinds
      AND made.status = ANY(%(statuses)s::ledger.transaction_status[]) -- if statuses
      AND made.reference = %(reference)s -- if reference
      AND made.actor = %(actor)s -- if actor
      AND NOT EXISTS (
          SELECT FROM ledger.entries AS other
          WHERE other.transaction_id = entry.transaction_id
            AND other.account = ANY(%(accounts)s::text[])
            AND (other.account IS DISTINCT FROM made.account, other.account)
                < (entry.account IS DISTINCT FROM made.account, entry.account)
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
