SELECT id, user_id, currency, is_default, created_at
FROM ledger.wallets
WHERE id = %(id)s
