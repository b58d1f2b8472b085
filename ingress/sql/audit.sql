SELECT id, time, user_id, action, subject, host(address) AS address, trace, detail
FROM ledger.audit
WHERE id < %(before)s
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
ORDER BY id DESC
LIMIT %(most)s
