UPDATE ledger.users SET password_hash = %(new)s WHERE id = %(id)s AND password_hash = %(old)s
