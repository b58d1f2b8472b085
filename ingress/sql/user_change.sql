-- Returns no row if nothing changes.
UPDATE ledger.users
SET role = coalesce(%(role)s, role),
    disabled_at = CASE
        WHEN %(disabled)s::boolean IS NULL THEN disabled_at
        WHEN %(disabled)s THEN coalesce(disabled_at, now())
    END
WHERE id = %(id)s
  AND (role <> coalesce(%(role)s, role)
       OR (disabled_at IS NOT NULL) <> coalesce(%(disabled)s::boolean, disabled_at IS NOT NULL))
RETURNING id, number, email, first_name, last_name, role, disabled_at IS NOT NULL AS disabled,
          created_at
