-- The read model: the journal as rows. Only the sink writes it. Each row belongs to one partition and
-- changes in the transaction that moves that partition's position. There are no foreign keys between
-- the tables: the rows of one transaction may come from several partitions, in any order.
--
-- Money is BIGINT minor units. System accounts have no bound, so their balances are NUMERIC; they
-- have tables of their own, so that ordinary accounts do not pay for that. Times are log time.
-- Text is compared by code points (COLLATE "C"), as the ledger does.

CREATE TYPE ledger.account_type AS ENUM
    ('wallet', 'asset', 'liability', 'equity', 'revenue', 'expense');
CREATE TYPE ledger.account_status AS ENUM ('open', 'frozen', 'closed');
CREATE TYPE ledger.direction AS ENUM ('debit', 'credit');
CREATE TYPE ledger.transaction_status AS ENUM ('pending', 'posted', 'rejected');
CREATE TYPE ledger.command_outcome AS ENUM
    ('pending', 'posted', 'rejected', 'refused', 'replayed');
CREATE TYPE ledger.hold_status AS ENUM ('open', 'capturing', 'captured', 'voided', 'expired');
CREATE TYPE ledger.system_role AS ENUM ('funding', 'fees', 'transit');
-- Domains, so that Postgres checks these when a row is inserted and not when a balance changes.
CREATE DOMAIN ledger.account_id AS text COLLATE "C"
    CHECK (VALUE ~ '^[A-Za-z0-9:_-]{1,64}$' AND VALUE !~ '^system:');
CREATE DOMAIN ledger.currency AS text COLLATE "C" CHECK (VALUE ~ '^[A-Z]{3}$');
CREATE DOMAIN ledger.shard_id AS text COLLATE "C"
    CHECK (VALUE ~ '^system:(funding|fees|transit):[A-Z]{3}:[0-9]{1,4}$');

-- The position of each partition: all these tables have exactly its journal up to there. A batch
-- moves the position from the value that it read; a sink that finds another value does not own the
-- partition. `next_offset` is of the topic `journal`; `last_hash` is the hash of record `sequence`.
-- `format_level` is the level that the journal has reached there. A program that does not support it
-- would drop fields that it does not know, so it refuses the partition.
CREATE TABLE ledger.positions (
    partition smallint PRIMARY KEY CHECK (partition >= 0),
    ledger_id text NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset > 0),
    sequence bigint NOT NULL CHECK (sequence > 0),
    last_hash text NOT NULL CHECK (last_hash ~ '^[0-9a-f]{64}$'),
    time timestamptz NOT NULL,
    format_level integer NOT NULL CHECK (format_level > 0)
) WITH (fillfactor = 50);

-- One row for each ordinary account: its current state. `sequence` is that of the last journal record
-- that changed the row, in the account's own partition; `version` counts its entries.
CREATE TABLE ledger.accounts (
    balance bigint NOT NULL,
    held bigint NOT NULL,
    incoming bigint NOT NULL,
    available bigint NOT NULL GENERATED ALWAYS AS (balance - held) STORED,
    version bigint NOT NULL,
    sequence bigint NOT NULL,
    min_balance bigint,
    opened_at timestamptz NOT NULL,
    type ledger.account_type NOT NULL,
    status ledger.account_status NOT NULL,
    partition smallint NOT NULL,
    currency ledger.currency NOT NULL,
    id ledger.account_id PRIMARY KEY,
    owner text COLLATE "C",
    metadata jsonb, -- a flat map of texts; null where there is none
    CONSTRAINT balance_is_exact
        CHECK (balance - held >= -9007199254740991 AND balance + incoming <= 9007199254740991),
    CONSTRAINT reservations_are_not_negative CHECK (held >= 0 AND incoming >= 0),
    CONSTRAINT available_is_within_limit
        CHECK (min_balance IS NULL OR balance - held >= min_balance),
    CONSTRAINT wallet_has_a_limit CHECK (type <> 'wallet' OR min_balance IS NOT NULL),
    CONSTRAINT limit_is_not_positive CHECK (min_balance <= 0),
    CONSTRAINT closed_is_empty
        CHECK (status <> 'closed' OR (balance = 0 AND held = 0 AND incoming = 0)),
    CONSTRAINT version_is_not_negative CHECK (version >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX accounts_by_owner ON ledger.accounts (owner, id) WHERE owner IS NOT NULL;

-- One row for each shard of a system account that has entries: `system:ROLE:CUR:PARTITION`. The
-- balance of a system account is the sum over its shards.
CREATE TABLE ledger.system_accounts (
    balance numeric NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    sequence bigint NOT NULL,
    role ledger.system_role NOT NULL,
    partition smallint NOT NULL,
    currency ledger.currency NOT NULL,
    id ledger.shard_id PRIMARY KEY
) WITH (fillfactor = 50);

-- The history of ordinary accounts: one row for each posted entry. `balance` and `held` are the
-- account's after the entry. Versions of an account are 1, 2, 3 ... without gaps, and time never
-- decreases from one to the next. So the primary key finds a page by its number, and a time by
-- bisection. `sequence` is that of the journal record, in `partition`.
CREATE TABLE ledger.entries (
    version bigint NOT NULL,
    amount bigint NOT NULL,
    balance bigint NOT NULL,
    held bigint NOT NULL,
    sequence bigint NOT NULL,
    time timestamptz NOT NULL,
    transaction_id uuid NOT NULL,
    direction ledger.direction NOT NULL,
    partition smallint NOT NULL,
    account text COLLATE "C" NOT NULL,
    PRIMARY KEY (account, version),
    CONSTRAINT amount_is_exact_and_positive CHECK (amount > 0 AND amount <= 9007199254740991),
    CONSTRAINT balance_is_exact
        CHECK (balance >= -9007199254740991 AND balance <= 9007199254740991),
    CONSTRAINT version_is_positive CHECK (version > 0)
);
-- Only looked up by one transaction: a hash costs half of what a tree of random ids does.
CREATE INDEX entries_by_transaction ON ledger.entries USING hash (transaction_id);
CREATE INDEX entries_by_time ON ledger.entries USING brin (time);

-- The same for system accounts.
CREATE TABLE ledger.system_entries (
    version bigint NOT NULL,
    amount bigint NOT NULL,
    sequence bigint NOT NULL,
    time timestamptz NOT NULL,
    transaction_id uuid NOT NULL,
    direction ledger.direction NOT NULL,
    partition smallint NOT NULL,
    account text COLLATE "C" NOT NULL,
    balance numeric NOT NULL,
    PRIMARY KEY (account, version),
    CONSTRAINT amount_is_exact_and_positive CHECK (amount > 0 AND amount <= 9007199254740991),
    CONSTRAINT version_is_positive CHECK (version > 0)
);
CREATE INDEX system_entries_by_transaction ON ledger.system_entries USING hash (transaction_id);
CREATE INDEX system_entries_by_time ON ledger.system_entries USING brin (time);

-- One row for each transaction id that a command owns, of any kind and outcome; its coordinator
-- writes it. `sequence` and `time` are those of the command's own step, `decided_*` those of the
-- outcome. They differ if several partitions take part; `decided_*` is null while pending.
-- `source_offset` is the command's in `commands`. `account` is the command's; `counterparty` is the
-- other one if there are exactly two ordinary accounts. `amount` is the requested amount without
-- fee; for a post and a reversal the sum of the debits; null if the kind has none or it is not
-- known. Its currency is that of `account`. `label` is the command's `id`.
CREATE TABLE ledger.transactions (
    sequence bigint NOT NULL,
    decided_sequence bigint,
    source_offset bigint NOT NULL,
    amount bigint,
    fee bigint NOT NULL,
    time timestamptz NOT NULL,
    decided_at timestamptz,
    effective_at timestamptz,
    id uuid PRIMARY KEY,
    -- A capture or void has its hold, a reversal its original, a reversed transaction its reversal.
    hold_id uuid,
    reverses uuid,
    reversed_by uuid,
    status ledger.transaction_status NOT NULL,
    commission_bps integer NOT NULL,
    partition smallint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    counterparty text COLLATE "C",
    reason text COLLATE "C",
    label text COLLATE "C",
    reference text COLLATE "C",
    description text,
    actor text COLLATE "C",
    external_id text COLLATE "C",
    metadata jsonb, -- as the command's; null where there is none
    CONSTRAINT amount_is_positive CHECK (amount > 0),
    CONSTRAINT fee_is_not_negative CHECK (fee >= 0 AND commission_bps >= 0),
    CONSTRAINT pending_is_undecided CHECK ((status = 'pending') = (decided_sequence IS NULL)),
    CONSTRAINT decided_has_a_time CHECK ((decided_sequence IS NULL) = (decided_at IS NULL)),
    CONSTRAINT rejected_has_a_reason CHECK ((status = 'rejected') = (reason IS NOT NULL))
);
CREATE INDEX transactions_by_account ON ledger.transactions (account, time, sequence);
-- Finds the few transactions of a rare kind without reading those of other kinds.
CREATE INDEX transactions_by_kind ON ledger.transactions (kind, time);
CREATE INDEX transactions_by_reference ON ledger.transactions (reference)
    WHERE reference IS NOT NULL;
CREATE INDEX transactions_by_external_id ON ledger.transactions (external_id)
    WHERE external_id IS NOT NULL;
CREATE INDEX transactions_pending ON ledger.transactions (time) WHERE status = 'pending';
CREATE INDEX transactions_by_time ON ledger.transactions USING brin (time);

-- One row for each hold: its current state. Its id is that of the transaction that placed it.
-- `captured` is the amount of its capture, pending or complete.
CREATE TABLE ledger.holds (
    amount bigint NOT NULL CHECK (amount > 0),
    captured bigint NOT NULL CHECK (captured BETWEEN 0 AND amount),
    sequence bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    id uuid PRIMARY KEY,
    status ledger.hold_status NOT NULL,
    partition smallint NOT NULL,
    account text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX holds_by_account ON ledger.holds (account, status, placed_at);

-- One row, and so one outcome, for each record of `commands`, by its position. `transaction_id` is
-- the one it owns or replays; null if validation refused the command. A `replayed` command has in
-- `first_status` the status that the first one had at that time; the first one is in
-- `transactions`. `sequence` and `time` are those of its own journal record. `label` is the
-- command's `id`. Kind and account are null if the record was unreadable.
CREATE TABLE ledger.commands (
    source_offset bigint NOT NULL,
    sequence bigint NOT NULL,
    time timestamptz NOT NULL,
    transaction_id uuid,
    outcome ledger.command_outcome NOT NULL,
    first_status ledger.transaction_status,
    partition smallint NOT NULL,
    kind text COLLATE "C",
    account text COLLATE "C",
    reason text COLLATE "C",
    detail text,
    label text COLLATE "C",
    actor text COLLATE "C",
    trace text COLLATE "C",
    PRIMARY KEY (partition, source_offset),
    CONSTRAINT refused_owns_nothing CHECK ((outcome = 'refused') = (transaction_id IS NULL)),
    CONSTRAINT replay_tells_the_first CHECK ((outcome = 'replayed') = (first_status IS NOT NULL)),
    CONSTRAINT no_has_a_reason CHECK (outcome NOT IN ('rejected', 'refused') OR reason IS NOT NULL)
);
CREATE INDEX commands_by_label ON ledger.commands (label) WHERE label IS NOT NULL;
CREATE INDEX commands_by_time ON ledger.commands USING brin (time);

-- All entries, of ordinary and system accounts: for sums over transactions and whole ledgers.
CREATE VIEW ledger.all_entries AS
    SELECT account, version, transaction_id, direction, amount, balance::numeric AS balance,
           time, partition, sequence
    FROM ledger.entries
    UNION ALL
    SELECT account, version, transaction_id, direction, amount, balance,
           time, partition, sequence
    FROM ledger.system_entries;
