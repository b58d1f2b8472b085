-- The views of the schema, whose tables are about to be replaced, as they would be made again.
SELECT viewname, definition
FROM pg_views
WHERE schemaname = 'ledger'
ORDER BY viewname
