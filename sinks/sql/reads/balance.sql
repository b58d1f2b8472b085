SELECT id AS account, currency, balance, held, incoming, available, version
FROM ledger.accounts
WHERE id = %(account)s
