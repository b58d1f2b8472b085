-- Transactions of one kind, in the order of time: the few of a rare kind are found among all, and in
-- an account's long history, without reading those of the others.

CREATE INDEX transactions_by_kind ON ledger.transactions (kind, time);
