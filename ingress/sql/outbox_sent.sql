UPDATE ledger.outbox
SET sent_at = now(), partition = sent.partition, source_offset = sent.source_offset
FROM unnest(%(ids)s::bigint[], %(partitions)s::smallint[], %(offsets)s::bigint[])
     AS sent (id, partition, source_offset)
WHERE outbox.id = sent.id
