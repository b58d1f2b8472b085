-- All accounts of an owner, and how many entries each has.
SELECT id AS account, version
FROM ledger.accounts
WHERE owner = %(owner)s
ORDER BY id
