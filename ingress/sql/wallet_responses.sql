-- All wallets of a user, the default one first, or one of them, with balances. A wallet without an
-- account yet is empty. The only query that joins the ingress's tables with the read model.
SELECT wallets.id,
       wallets.currency,
       wallets.created_at,
       coalesce(accounts.balance, 0) AS balance,
       coalesce(accounts.held, 0) AS held,
       coalesce(accounts.version, 0) AS version,
       coalesce(accounts.status::text, 'opening') AS status,
       coalesce(entries.time, wallets.created_at) AS updated_at
FROM ledger.wallets
LEFT JOIN ledger.accounts ON accounts.id = wallets.id
LEFT JOIN ledger.entries ON entries.account = accounts.id AND entries.version = accounts.version
WHERE wallets.user_id = %(user_id)s
  AND (%(id)s::text IS NULL OR wallets.id = %(id)s)
ORDER BY wallets.is_default DESC, wallets.created_at, wallets.id
