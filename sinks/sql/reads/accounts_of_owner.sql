-- All accounts of an owner, with the number of their entries.
SELECT id AS account, version
FROM ledger.accounts
WHERE owner = %(owner)s
ORDER BY id
