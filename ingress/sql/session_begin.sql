INSERT INTO ledger.tokens (hash, kind, user_id, expires_at, last_used_at, user_agent, address)
VALUES (%(hash)s, 'session', %(user_id)s, now() + make_interval(secs => %(ttl_s)s), now(),
        %(user_agent)s, %(address)s)
RETURNING id::text
