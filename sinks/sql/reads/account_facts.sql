-- The columns of accounts that never change.
SELECT id, type, currency, owner
FROM ledger.accounts
WHERE id = ANY(%(ids)s)
