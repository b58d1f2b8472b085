-- Totals of accounts that a batch posted to or reserved on, each as it is at the batch's end. A row
-- is found only where that follows on what it has: a later sequence, as many versions on as there
-- were entries, and the balance that these make.
UPDATE accounts
SET balance = coalesce(given.balance, accounts.balance),
    held = coalesce(given.held, accounts.held),
    incoming = coalesce(given.incoming, accounts.incoming),
    version = accounts.version + given.entries,
    sequence = given.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::bigint[], %(held)s::bigint[], %(incoming)s::bigint[],
    %(version)s::bigint[], %(entries)s::bigint[], %(net)s::bigint[], %(sequence)s::bigint[]
) AS given (id, balance, held, incoming, version, entries, net, sequence)
WHERE accounts.id = given.id
    AND accounts.partition = %(partition)s
    AND accounts.sequence < given.sequence
    AND accounts.version + given.entries = coalesce(given.version, accounts.version)
    AND CASE WHEN accounts.type IN ('asset', 'expense')
        THEN accounts.balance - given.net ELSE accounts.balance + given.net
        END = coalesce(given.balance, accounts.balance)
