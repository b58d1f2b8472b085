-- An account as it is now; one without entries has no row elsewhere.
SELECT id, type, currency, status, owner, min_balance, balance, held, incoming, available, version,
       partition, sequence, opened_at, coalesce(metadata, '{}') AS metadata
FROM ledger.accounts
WHERE id = %(account)s
