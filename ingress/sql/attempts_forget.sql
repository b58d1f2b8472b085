DELETE FROM ledger.attempts WHERE key = %(key)s
