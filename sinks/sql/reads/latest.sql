-- The greatest log time of any partition.
SELECT max(time) AS time FROM ledger.positions
