-- An account in its present state.
SELECT id, type, currency, status, owner, min_balance, balance, held, incoming, available, version,
       partition, sequence, opened_at, coalesce(metadata, '{}') AS metadata
FROM ledger.accounts
WHERE id = %(account)s
