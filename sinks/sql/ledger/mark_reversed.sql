-- Originals whose reversal was posted in the batch.
UPDATE transactions
SET reversed_by = batch.reversal
FROM unnest(%(id)s::uuid[], %(reversal)s::uuid[]) AS batch (id, reversal)
WHERE transactions.id = batch.id
    AND transactions.partition = %(partition)s
    AND transactions.status = 'posted'
    AND transactions.reversed_by IS NULL
