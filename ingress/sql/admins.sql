SELECT count(*) AS admins FROM ledger.users WHERE role = 'admin' AND disabled_at IS NULL
