-- Users, their sessions and API keys, and the throttle of sign-in attempts. The journal has none of
-- this, and the sink neither reads nor writes it.

CREATE TYPE ledger.token_kind AS ENUM ('session', 'api_key');

-- Users who may sign in. `id` is a uuid, which accounts and commands call `owner`; `number` is the
-- integer id of the API. E-mail addresses are ASCII and compared without case in every locale.
-- `token_counter` revokes access tokens: a token carries the value that it was issued with, and one
-- with a lower value is refused. So no two clocks are compared.
CREATE TABLE ledger.users (
    id text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    email text NOT NULL,
    first_name text NOT NULL DEFAULT '',
    password_hash text,
    role text COLLATE "C" NOT NULL DEFAULT 'user',
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    last_name text NOT NULL DEFAULT '',
    token_counter bigint NOT NULL DEFAULT 0,
    -- When the counter was last raised: older raises concern expired tokens only.
    tokens_revoked_at timestamptz,
    CONSTRAINT role_is_known CHECK (role IN ('user', 'operator', 'auditor', 'admin'))
);
CREATE UNIQUE INDEX users_by_email ON ledger.users (lower(email COLLATE "C"));
CREATE INDEX users_by_tokens_revoked ON ledger.users (tokens_revoked_at)
    WHERE tokens_revoked_at IS NOT NULL;

-- Sessions and API keys; each expires. Only the hash of the secret that the client holds is kept: of
-- a session, the one refresh token or cookie that may be used next. The current refresh token was
-- derived from `refresh_salt` and the token before it, so a client that lost the response, and only
-- that client, can get the same token again.
CREATE TABLE ledger.tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    hash bytea NOT NULL UNIQUE,
    kind ledger.token_kind NOT NULL,
    user_id text COLLATE "C" NOT NULL REFERENCES ledger.users ON DELETE CASCADE,
    name text NOT NULL DEFAULT '',
    scopes text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    user_agent text NOT NULL DEFAULT '',
    address inet,
    refresh_salt bytea
);
CREATE INDEX tokens_by_user ON ledger.tokens (user_id, kind);
CREATE INDEX tokens_by_revoked ON ledger.tokens (revoked_at) WHERE revoked_at IS NOT NULL;
-- Whether a user has signed in from an address before.
CREATE INDEX tokens_by_address ON ledger.tokens (user_id, address) WHERE kind = 'session';

-- Used refresh tokens. If one is presented again it was copied, and its session ends.
CREATE TABLE ledger.spent_tokens (
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES ledger.tokens ON DELETE CASCADE,
    spent_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX spent_tokens_by_session ON ledger.spent_tokens (session_id);

-- Wrong passwords, counted in Postgres so that all ingresses share the count and none forgets it
-- with a restart. Each wrong password moves `until` by the same time, from now or from its value;
-- its distance from now is the number of recent attempts. A row whose `until` is past counts
-- nothing. The counted address or user is kept as a keyed hash: people type passwords into wrong
-- fields.
CREATE TABLE ledger.attempts (
    key bytea PRIMARY KEY,
    until timestamptz NOT NULL
);
