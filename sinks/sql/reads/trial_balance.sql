-- The total of each type of account and each system account, by currency. It reads all accounts.
-- The shards of a system account are summed up.
WITH signed AS (
    SELECT currency, type::text AS name,
           CASE WHEN type IN ('asset', 'expense') THEN balance ELSE -balance END::numeric AS amount
    FROM ledger.accounts
    UNION ALL
    SELECT currency, 'system:' || role::text,
           sum(CASE WHEN role = 'funding' THEN balance ELSE -balance END)
    FROM ledger.system_accounts
    GROUP BY currency, role
)
SELECT currency, name, sum(greatest(amount, 0)) AS debit, sum(greatest(-amount, 0)) AS credit
FROM signed
WHERE true
  AND currency = %(currency)s -- if currency
GROUP BY currency, name
ORDER BY currency, name
