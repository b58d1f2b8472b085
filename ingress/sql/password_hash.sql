SELECT password_hash FROM ledger.users WHERE id = %(id)s
