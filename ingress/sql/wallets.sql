SELECT id, user_id, currency, is_default, created_at
FROM ledger.wallets
WHERE user_id = %(user_id)s
ORDER BY is_default DESC, created_at, id
