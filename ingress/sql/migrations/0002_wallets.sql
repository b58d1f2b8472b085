-- Wallets opened over HTTP, the outbox of their commands, and long work.

CREATE TYPE ledger.job_status AS ENUM ('waiting', 'running', 'done', 'failed', 'cancelled');

-- Commands that a transaction of Postgres decided on and a relay still has to write to `commands`, in
-- the order of their ids. The row stays, with the position of its record.
CREATE TABLE ledger.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    transaction_id uuid NOT NULL UNIQUE,
    command jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    partition smallint,
    source_offset bigint
);
CREATE INDEX outbox_unsent ON ledger.outbox (id) WHERE sent_at IS NULL;
CREATE INDEX outbox_by_account ON ledger.outbox (account);

-- Wallets requested over HTTP. The same transaction inserts a row in `outbox`. A wallet is open once
-- `accounts` has it.
CREATE TABLE ledger.wallets (
    id text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL REFERENCES ledger.users,
    currency text COLLATE "C" NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX wallets_by_user ON ledger.wallets (user_id, created_at);
CREATE UNIQUE INDEX wallets_default ON ledger.wallets (user_id) WHERE is_default;

-- Long work: bulk credits, imports, exports.
CREATE TABLE ledger.jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL REFERENCES ledger.users,
    status ledger.job_status NOT NULL DEFAULT 'waiting',
    input jsonb NOT NULL DEFAULT '{}',
    progress jsonb NOT NULL DEFAULT '{}',
    result jsonb,
    worker text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    heard_of_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX jobs_by_user ON ledger.jobs (user_id, created_at);
CREATE INDEX jobs_unfinished ON ledger.jobs (created_at) WHERE status IN ('waiting', 'running');
