-- A transaction as one of its parties sees it: the owner of the command's account and, once it is
-- posted, the owner of the other account.
SELECT id::text AS id, kind, status, reason, account, counterparty, amount, fee, commission_bps,
       label, reference, description, actor, external_id, coalesce(metadata, '{}') AS metadata,
       hold_id::text AS hold_id, reverses::text AS reverses, reversed_by::text AS reversed_by,
       time, decided_at, effective_at, partition, source_offset, sequence, decided_sequence
FROM ledger.transactions
WHERE id = %(id)s::uuid
  AND EXISTS (
      SELECT FROM ledger.accounts
      WHERE owner = %(party)s
        AND (accounts.id = transactions.account
             OR (accounts.id = transactions.counterparty AND transactions.status = 'posted'))
  )
