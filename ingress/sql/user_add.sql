INSERT INTO ledger.users (id, email, first_name, last_name, password_hash, role)
VALUES (%(id)s, %(email)s, %(first_name)s, %(last_name)s, %(password_hash)s, %(role)s)
RETURNING id, number, email, first_name, last_name, role, disabled_at IS NOT NULL AS disabled,
          created_at
