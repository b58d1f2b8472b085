-- The views of the schema with their definitions, to create them again after the switch.
SELECT viewname, definition
FROM pg_views
WHERE schemaname = 'ledger'
ORDER BY viewname
