-- Latest first, starting before the given row.
SELECT id, time, user_id, key_id, action, subject, host(address) AS address, trace, detail, count
FROM ledger.audit
WHERE (time, id) < (%(before)s, %(before_id)s)
  AND (%(since)s::timestamptz IS NULL OR time >= %(since)s)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(subject)s::text IS NULL OR subject = %(subject)s)
ORDER BY time DESC, id DESC
LIMIT %(limit)s
