-- Version 0 is the newly opened account.
SELECT account.id AS account, account.currency, coalesce(entry.version, 0) AS version,
       coalesce(entry.balance, 0) AS balance, entry.time
FROM ledger.accounts AS account
LEFT JOIN ledger.entries AS entry
       ON entry.account = account.id AND entry.version = %(version)s
WHERE account.id = %(account)s AND %(version)s BETWEEN 0 AND account.version
