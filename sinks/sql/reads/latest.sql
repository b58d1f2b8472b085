-- The greatest log time that any partition has here.
SELECT max(time) AS time FROM ledger.positions
