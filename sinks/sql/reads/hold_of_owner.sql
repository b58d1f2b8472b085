-- A hold, for the owner of its account.
SELECT id::text AS id, account, currency, status, amount, captured, placed_at, changed_at,
       expires_at, partition, sequence
FROM ledger.holds
WHERE id = %(id)s::uuid
  AND EXISTS (SELECT FROM ledger.accounts WHERE accounts.id = holds.account AND owner = %(owner)s)
