-- The same for accounts whose status, limit or metadata changed. Totals and limit change in one
-- statement, as only both together satisfy the constraints.
UPDATE accounts
SET balance = coalesce(batch.balance, accounts.balance),
    held = coalesce(batch.held, accounts.held),
    incoming = coalesce(batch.incoming, accounts.incoming),
    version = accounts.version + batch.entries,
    sequence = batch.sequence,
    status = batch.status,
    min_balance = batch.min_balance,
    metadata = batch.metadata::jsonb
FROM unnest(
    %(id)s::text[], %(balance)s::bigint[], %(held)s::bigint[], %(incoming)s::bigint[],
    %(version)s::bigint[], %(entries)s::bigint[], %(net)s::bigint[], %(sequence)s::bigint[],
    %(status)s::ledger.account_status[], %(min_balance)s::bigint[], %(metadata)s::text[]
) AS batch (
    id, balance, held, incoming, version, entries, net, sequence, status, min_balance, metadata
)
WHERE accounts.id = batch.id
    AND accounts.partition = %(partition)s
    AND accounts.sequence < batch.sequence
    AND accounts.version + batch.entries = coalesce(batch.version, accounts.version)
    AND CASE WHEN accounts.type IN ('asset', 'expense')
        THEN accounts.balance - batch.net ELSE accounts.balance + batch.net
        END = coalesce(batch.balance, accounts.balance)
