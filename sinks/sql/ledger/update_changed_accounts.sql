-- The same for accounts whose status, limit or metadata changed, with or without their totals: at
-- once, as only the two together keep the rules.
UPDATE accounts
SET balance = coalesce(given.balance, accounts.balance),
    held = coalesce(given.held, accounts.held),
    incoming = coalesce(given.incoming, accounts.incoming),
    version = accounts.version + given.entries,
    sequence = given.sequence,
    status = given.status,
    min_balance = given.min_balance,
    metadata = given.metadata::jsonb
FROM unnest(
    %(id)s::text[], %(balance)s::bigint[], %(held)s::bigint[], %(incoming)s::bigint[],
    %(version)s::bigint[], %(entries)s::bigint[], %(net)s::bigint[], %(sequence)s::bigint[],
    %(status)s::ledger.account_status[], %(min_balance)s::bigint[], %(metadata)s::text[]
) AS given (
    id, balance, held, incoming, version, entries, net, sequence, status, min_balance, metadata
)
WHERE accounts.id = given.id
    AND accounts.partition = %(partition)s
    AND accounts.sequence < given.sequence
    AND accounts.version + given.entries = coalesce(given.version, accounts.version)
    AND CASE WHEN accounts.type IN ('asset', 'expense')
        THEN accounts.balance - given.net ELSE accounts.balance + given.net
        END = coalesce(given.balance, accounts.balance)
