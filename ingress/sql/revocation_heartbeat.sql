SELECT pg_notify(%(channel)s, %(heartbeat)s)
