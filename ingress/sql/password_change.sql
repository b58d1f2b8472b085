-- Of two changes at once the second finds its current password gone.
UPDATE ledger.users
SET password_hash = %(new)s
WHERE id = %(id)s AND password_hash = %(old)s AND disabled_at IS NULL
