-- The wallet that receives money for a user: of the currency, the default one or else the oldest.
-- If the user has none of the currency, the default wallet.
SELECT wallets.id, wallets.user_id, wallets.currency, wallets.is_default, wallets.created_at
FROM ledger.wallets
JOIN ledger.users ON users.id = wallets.user_id
WHERE users.id = %(id)s::text
   OR users.number = %(number)s::bigint
   OR lower(users.email COLLATE "C") = %(email)s::text
ORDER BY wallets.currency = %(currency)s DESC, wallets.is_default DESC, wallets.created_at, wallets.id
LIMIT 1
