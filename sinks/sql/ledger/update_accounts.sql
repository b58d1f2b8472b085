-- Totals of accounts that a batch posted to or reserved on, each as it is at the batch's end. A row
-- is found only where that follows on what it has: a later sequence, as many versions on as there
-- were entries, and the balance that these make.
UPDATE accounts
SET balance = coalesce(batch.balance, accounts.balance),
    held = coalesce(batch.held, accounts.held),
    incoming = coalesce(batch.incoming, accounts.incoming),
    version = accounts.version + batch.entries,
    sequence = batch.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::bigint[], %(held)s::bigint[], %(incoming)s::bigint[],
    %(version)s::bigint[], %(entries)s::bigint[], %(net)s::bigint[], %(sequence)s::bigint[]
) AS batch (id, balance, held, incoming, version, entries, net, sequence)
WHERE accounts.id = batch.id
    AND accounts.partition = %(partition)s
    AND accounts.sequence < batch.sequence
    AND accounts.version + batch.entries = coalesce(batch.version, accounts.version)
    AND CASE WHEN accounts.type IN ('asset', 'expense')
        THEN accounts.balance - batch.net ELSE accounts.balance + batch.net
        END = coalesce(batch.balance, accounts.balance)
