SELECT partition, sequence, source_offset, outcome, reason, detail, transaction_id::text,
       first_status, time, kind, account, label, actor, trace
FROM ledger.commands
ORDER BY partition, sequence, source_offset
