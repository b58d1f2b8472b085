SELECT id, password_hash, disabled_at IS NOT NULL AS disabled
FROM ledger.users
WHERE lower(email COLLATE "C") = %(email)s
