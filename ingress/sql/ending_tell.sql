SELECT pg_notify(
    %(channel)s,
    concat_ws(' ', %(kind)s::text, %(id)s::text,
              extract(epoch FROM clock_timestamp())::double precision::text)
)
