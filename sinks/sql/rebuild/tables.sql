-- A table's options, keys and other indexes, keys first.
SELECT class.reloptions,
       ARRAY(SELECT format('ADD CONSTRAINT %%I %%s', conname, pg_get_constraintdef(oid))
             FROM pg_constraint
             WHERE conrelid = class.oid AND contype IN ('p', 'u', 'x')
             ORDER BY conname) AS keys,
       ARRAY(SELECT pg_get_indexdef(indexrelid)
             FROM pg_index
             WHERE indrelid = class.oid
               AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
             ORDER BY indexrelid) AS indexes
FROM pg_class AS class
WHERE class.oid = %(table)s::regclass
