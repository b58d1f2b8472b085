SELECT partition, id, type, currency, status, owner, min_balance, balance, held, incoming,
       available, version, sequence, opened_at, coalesce(metadata, '{}')
FROM ledger.accounts
ORDER BY partition
