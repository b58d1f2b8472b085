-- Shards whose first entry was in the batch.
INSERT INTO system_accounts (id, role, currency, partition, balance, version, sequence)
SELECT batch.id, split_part(batch.id, ':', 2)::ledger.system_role, split_part(batch.id, ':', 3),
    %(partition)s, batch.balance, batch.version, batch.sequence
FROM unnest(
    %(id)s::text[], %(balance)s::numeric[], %(version)s::bigint[], %(entries)s::bigint[],
    %(net)s::numeric[], %(sequence)s::bigint[]
) AS batch (id, balance, version, entries, net, sequence)
WHERE batch.entries = batch.version
    AND CASE split_part(batch.id, ':', 2) WHEN 'funding' THEN -batch.net ELSE batch.net
        END = batch.balance
