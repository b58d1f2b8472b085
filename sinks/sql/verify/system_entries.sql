SELECT partition, sequence, account, version, direction, amount, balance, 0, time,
       transaction_id::text
FROM ledger.system_entries
ORDER BY partition, sequence, account, version
