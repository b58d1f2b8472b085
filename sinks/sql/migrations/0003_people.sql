-- What the ingress keeps for itself. None of it is the ledger's: it cannot be made again from the
-- journal, and the sink neither reads nor writes it.

CREATE TYPE ledger.token_kind AS ENUM ('session', 'api_key');
CREATE TYPE ledger.job_status AS ENUM ('waiting', 'running', 'done', 'failed', 'cancelled');

-- People who may sign in. `id` is what commands and accounts call `owner`.
CREATE TABLE ledger.users (
    id text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    email text NOT NULL,
    name text NOT NULL DEFAULT '',
    password_hash text,
    role text COLLATE "C" NOT NULL DEFAULT 'user',
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_by_email ON ledger.users (lower(email));

-- Sessions and API keys. Only the hash of what the client carries is kept.
CREATE TABLE ledger.tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    hash bytea NOT NULL UNIQUE,
    kind ledger.token_kind NOT NULL,
    user_id text COLLATE "C" NOT NULL REFERENCES ledger.users ON DELETE CASCADE,
    name text NOT NULL DEFAULT '',
    scopes text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX tokens_by_user ON ledger.tokens (user_id, kind);

-- Commands that were decided on in a transaction of Postgres and are still to be written to
-- `commands`, by a relay, in the order of their ids. The row is kept, with where it went.
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

-- Who did what over HTTP. Rows are only ever added.
CREATE TABLE ledger.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time timestamptz NOT NULL DEFAULT now(),
    user_id text COLLATE "C",
    action text COLLATE "C" NOT NULL,
    subject text COLLATE "C",
    address inet,
    trace text COLLATE "C",
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_by_user ON ledger.audit (user_id, time);
CREATE INDEX audit_by_time ON ledger.audit USING brin (time);
