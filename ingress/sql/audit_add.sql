INSERT INTO ledger.audit (user_id, action, subject, address, trace, detail)
VALUES (%(user_id)s, %(action)s, %(subject)s, %(address)s, %(trace)s, %(detail)s)
