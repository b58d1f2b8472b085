SELECT
    id,
    password_hash,
    role,
    disabled_at IS NOT NULL AS disabled,
    EXISTS (
        SELECT FROM ledger.tokens
        WHERE user_id = users.id AND kind = 'session' AND address <<= %(network)s::inet
    ) AS known_network
FROM ledger.users
WHERE lower(email COLLATE "C") = %(email)s
