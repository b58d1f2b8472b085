SELECT partition, id::text, account, currency, amount, captured, status, sequence, placed_at,
       changed_at, expires_at
FROM ledger.holds
ORDER BY partition
