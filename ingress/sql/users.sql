SELECT id, number, email, first_name, last_name, role, disabled_at IS NOT NULL AS disabled,
       created_at
FROM ledger.users
WHERE number > %(after)s
  AND (%(role)s::text IS NULL OR role = %(role)s)
  AND (%(email)s::text IS NULL OR lower(email COLLATE "C") = %(email)s)
ORDER BY number
LIMIT %(limit)s
