SELECT FROM ledger.users WHERE id = %(id)s FOR NO KEY UPDATE
