INSERT INTO ledger.audit (user_id, key_id, action, subject, address, trace, detail, count)
SELECT user_id, key_id, action, subject, address, trace, detail, count
FROM jsonb_to_recordset(%(rows)s::jsonb) AS row (
    user_id text, key_id text, action text, subject text, address inet, trace text, detail jsonb,
    count integer
)
