-- As update_accounts.sql. A debit raises funding, a credit the others.
UPDATE system_accounts
SET balance = given.balance,
    version = given.version,
    sequence = given.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::numeric[], %(version)s::bigint[], %(entries)s::bigint[],
    %(net)s::numeric[], %(sequence)s::bigint[]
) AS given (id, balance, version, entries, net, sequence)
WHERE system_accounts.id = given.id
    AND system_accounts.partition = %(partition)s
    AND system_accounts.sequence < given.sequence
    AND system_accounts.version + given.entries = given.version
    AND CASE role WHEN 'funding'
        THEN system_accounts.balance - given.net ELSE system_accounts.balance + given.net
        END = given.balance
