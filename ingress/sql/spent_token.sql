SELECT session_id::text AS id FROM ledger.spent_tokens WHERE hash = %(hash)s
