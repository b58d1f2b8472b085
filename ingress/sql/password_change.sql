-- Of two concurrent changes, the second matches no row.
UPDATE ledger.users
SET password_hash = %(new)s
WHERE id = %(id)s AND password_hash = %(old)s AND disabled_at IS NULL
