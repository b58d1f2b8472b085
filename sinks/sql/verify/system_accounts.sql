SELECT partition, id, role, currency, balance, version, sequence
FROM ledger.system_accounts
ORDER BY partition
