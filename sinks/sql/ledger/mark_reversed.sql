-- Originals whose reversal was posted in the batch.
UPDATE transactions
SET reversed_by = given.reversal
FROM unnest(%(id)s::uuid[], %(reversal)s::uuid[]) AS given (id, reversal)
WHERE transactions.id = given.id
    AND transactions.partition = %(partition)s
    AND transactions.status = 'posted'
    AND transactions.reversed_by IS NULL
