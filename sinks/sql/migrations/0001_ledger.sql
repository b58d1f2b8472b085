-- The schema that everything of the read side lives in, and the record of what made it.

CREATE SCHEMA ledger;

CREATE TABLE ledger.migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
