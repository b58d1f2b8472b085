SELECT partition, sequence, id::text, status, reason, decided_sequence, decided_at, fee,
       commission_bps, reversed_by::text, source_offset, amount, time, effective_at,
       hold_id::text, reverses::text, kind, account, counterparty, label, reference, description,
       actor, external_id, coalesce(metadata, '{}')
FROM ledger.transactions
ORDER BY partition, sequence, id
