SELECT partition, sequence, account, version, direction, amount, balance, held, time,
       transaction_id::text
FROM ledger.entries
ORDER BY partition, sequence, account, version
