-- Ends a user's oldest sessions or API keys beyond the limit. The statement that created the new
-- one locked the user's row, so this one sees all of them.
WITH ended AS (
    UPDATE ledger.tokens
    SET revoked_at = now()
    WHERE id IN (
        SELECT id
        FROM ledger.tokens
        WHERE user_id = %(user_id)s
          AND kind = %(kind)s
          AND revoked_at IS NULL
          AND expires_at > now()
          AND id <> %(new)s::uuid
        ORDER BY created_at DESC, id
        OFFSET %(limit)s - 1
    )
      AND revoked_at IS NULL
    RETURNING id
), numbered AS (
    SELECT id, (row_number() OVER () - 1) / 100 AS part FROM ended
)
-- A notification holds less than 8,000 bytes: 100 ids in each.
SELECT array_agg(id::text) AS ids,
       pg_notify(%(channel)s, concat_ws(' ', %(kind)s::text, string_agg(id::text, ',')))::text
           AS notified
FROM numbered
GROUP BY part
