-- What never changes about accounts.
SELECT id, type, currency, owner
FROM ledger.accounts
WHERE id = ANY(%(ids)s)
