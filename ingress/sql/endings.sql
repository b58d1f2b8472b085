-- What was ended so lately that an access token may be alive that does not know.
SELECT 'session' AS kind, id::text AS id,
       extract(epoch FROM revoked_at)::double precision AS at
FROM ledger.tokens
WHERE kind = 'session' AND revoked_at > now() - make_interval(secs => %(kept_s)s)
UNION ALL
SELECT 'user', id, extract(epoch FROM valid_from)::double precision
FROM ledger.users
WHERE valid_from > now() - make_interval(secs => %(kept_s)s)
  AND valid_from > '-infinity'
