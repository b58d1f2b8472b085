SELECT id, number
FROM ledger.users
WHERE id = ANY(%(ids)s)
