-- Ends the transactions that other sinks have left open. A sink that is alive retries.
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE application_name = current_setting('application_name')
    AND usename = current_user
    AND datname = current_database()
    AND pid <> pg_backend_pid()
    AND wait_event = 'ClientRead'
    AND xact_start < clock_timestamp() - make_interval(secs => %(frozen_ms)s / 1000.0)
