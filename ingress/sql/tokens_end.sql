-- Ends sessions or API keys of a user: `only` one, or all except `but`.
WITH ended AS (
    UPDATE ledger.tokens
    SET revoked_at = now()
    WHERE user_id = %(user_id)s
      AND kind = %(kind)s
      AND revoked_at IS NULL
      AND CASE
          WHEN %(only)s::uuid IS NOT NULL THEN id = %(only)s
          ELSE expires_at > now() AND id IS DISTINCT FROM %(but)s::uuid
      END
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
