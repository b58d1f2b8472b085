-- Writes a wallet and the command that opens it.
WITH outbox_row AS (
    INSERT INTO ledger.outbox (account, transaction_id, command)
    VALUES (%(id)s, %(transaction_id)s, %(command)s)
)
INSERT INTO ledger.wallets (id, user_id, currency, is_default)
VALUES (%(id)s, %(user_id)s, %(currency)s, %(is_default)s)
RETURNING id, user_id, currency, is_default, created_at
