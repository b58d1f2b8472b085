-- Totals of the accounts of a batch, as they are at its end. An account matches only in the state
-- that the batch follows: an earlier sequence, a version smaller by the number of entries, and a
-- balance that differs by their net.
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
