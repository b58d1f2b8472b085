UPDATE ledger.users
SET role = coalesce(%(role)s, role),
    disabled_at = CASE
        WHEN %(disabled)s::boolean IS NULL THEN disabled_at
        WHEN %(disabled)s THEN coalesce(disabled_at, now())
    END,
    valid_from = clock_timestamp()
WHERE id = %(id)s
RETURNING id, number, email, first_name, last_name, role, disabled_at IS NOT NULL AS disabled,
          created_at
