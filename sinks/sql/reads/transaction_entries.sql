-- The posted entries of a transaction, the coordinator's first.
SELECT account, version, direction, amount, balance::numeric AS balance, held, time, partition,
       sequence, %(id)s AS transaction_id
FROM ledger.entries
WHERE transaction_id = %(id)s::uuid
UNION ALL
SELECT account, version, direction, amount, balance, 0, time, partition, sequence, %(id)s
FROM ledger.system_entries
WHERE transaction_id = %(id)s::uuid
ORDER BY time, partition, sequence, account
