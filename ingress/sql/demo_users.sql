SELECT id, email, password_hash
FROM ledger.users
WHERE lower(email COLLATE "C") = ANY(%(emails)s)
  AND password_hash IS NOT NULL
  AND disabled_at IS NULL
