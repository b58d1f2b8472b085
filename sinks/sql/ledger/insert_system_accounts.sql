-- Shards whose first entry was in the batch.
INSERT INTO system_accounts (id, role, currency, partition, balance, version, sequence)
SELECT given.id, split_part(given.id, ':', 2)::ledger.system_role, split_part(given.id, ':', 3),
    %(partition)s, given.balance, given.version, given.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::numeric[], %(version)s::bigint[], %(entries)s::bigint[],
    %(net)s::numeric[], %(sequence)s::bigint[]
) AS given (id, balance, version, entries, net, sequence)
WHERE given.entries = given.version
    AND CASE split_part(given.id, ':', 2) WHEN 'funding' THEN -given.net ELSE given.net
        END = given.balance
