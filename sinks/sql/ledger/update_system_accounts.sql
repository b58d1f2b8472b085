-- As update_accounts.sql. Debits increase funding, credits the others.
UPDATE system_accounts
SET balance = batch.balance,
    version = batch.version,
    sequence = batch.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::numeric[], %(version)s::bigint[], %(entries)s::bigint[],
    %(net)s::numeric[], %(sequence)s::bigint[]
) AS batch (id, balance, version, entries, net, sequence)
WHERE system_accounts.id = batch.id
    AND system_accounts.partition = %(partition)s
    AND system_accounts.sequence < batch.sequence
    AND system_accounts.version + batch.entries = batch.version
    AND CASE role WHEN 'funding'
        THEN system_accounts.balance - batch.net ELSE system_accounts.balance + batch.net
        END = batch.balance
