SELECT id, number, email, first_name, last_name, role, disabled_at IS NOT NULL AS disabled,
       created_at
FROM ledger.users
WHERE id = %(id)s
