-- What the current refresh token of a session was derived with, together with the token before it:
-- a client that lost the answer, and only that client, can be given the same token again.
ALTER TABLE ledger.tokens ADD COLUMN refresh_salt bytea;
