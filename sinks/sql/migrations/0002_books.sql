-- The books: what the journal says, as rows. The sink alone writes them, each row for one partition
-- only, in the same transaction that moves that partition's position. There are no foreign keys
-- between them: the rows of one transaction may come from several partitions, in any order.
--
-- Money is BIGINT minor units. System accounts have no bound, so their balances are NUMERIC; they
-- stand in tables of their own, that nobody else's history pays for that. Times are log time.
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
-- Domains, so that these are tested when a row is made and not whenever a balance moves.
CREATE DOMAIN ledger.account_id AS text COLLATE "C"
    CHECK (VALUE ~ '^[A-Za-z0-9:_-]{1,64}$' AND VALUE !~ '^system:');
CREATE DOMAIN ledger.currency AS text COLLATE "C" CHECK (VALUE ~ '^[A-Z]{3}$');
CREATE DOMAIN ledger.shard_id AS text COLLATE "C"
    CHECK (VALUE ~ '^system:(funding|fees|transit):[A-Z]{3}:[0-9]{1,4}$');

-- How far the journal of each partition stands in these tables: all of these tables, always. A
-- batch moves it from exactly what it read before; who finds it elsewhere does not own the
-- partition. `next_offset` is of the topic `journal`; `last_hash` is the hash of record `sequence`.
CREATE TABLE ledger.positions (
    partition smallint PRIMARY KEY CHECK (partition >= 0),
    ledger_id text NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset > 0),
    sequence bigint NOT NULL CHECK (sequence > 0),
    last_hash text NOT NULL CHECK (last_hash ~ '^[0-9a-f]{64}$'),
    time timestamptz NOT NULL
) WITH (fillfactor = 50);

-- One row for each ordinary account, as it is now. `sequence` is that of the last journal record
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

-- One row for each shard of a system account that was ever posted to: `system:ROLE:CUR:PARTITION`.
-- What people see of one is the sum over its shards.
CREATE TABLE ledger.system_accounts (
    balance numeric NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    sequence bigint NOT NULL,
    role ledger.system_role NOT NULL,
    partition smallint NOT NULL,
    currency ledger.currency NOT NULL,
    id ledger.shard_id PRIMARY KEY
) WITH (fillfactor = 50);

-- The history of ordinary accounts: one row for each posted entry, `balance` and `held` being the
-- account's after it. Versions of an account are 1, 2, 3 ... without gaps, and time never falls
-- from one to the next, so that the primary key finds a page by its number, and a time by
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
-- Only ever asked for one transaction: a hash costs half of what a tree of random ids does.
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

-- One row for each transaction id that a command owns, whatever its kind and its outcome; written
-- by its coordinator. `sequence` and `time` are those of the command's own step, `decided_*` those
-- of the outcome (the same but where several partitions took part; null while pending).
-- `source_offset` is the command's in `commands`. `account` is the command's, `counterparty` the
-- other one where there are just two ordinary accounts. `amount` is what was asked for, without
-- fee; of a post and a reversal the sum of the debits; null where the kind has none or it is not
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
    -- Of a capture or void its hold, of a reversal its original, of what was reversed its reversal.
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
CREATE INDEX transactions_by_reference ON ledger.transactions (reference)
    WHERE reference IS NOT NULL;
CREATE INDEX transactions_by_external_id ON ledger.transactions (external_id)
    WHERE external_id IS NOT NULL;
CREATE INDEX transactions_pending ON ledger.transactions (time) WHERE status = 'pending';
CREATE INDEX transactions_by_time ON ledger.transactions USING brin (time);

-- One row for each hold, as it is now. Its id is that of the transaction that placed it.
-- `captured` is the amount of its capture, under way or done.
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
-- the one it owns or replays; null where it was refused at the door. `replayed` tells in
-- `first_status` what the first was then; the first is in `transactions`. `sequence` and `time` are
-- those of its own journal record. `label` is the command's `id`. Kind and account are null where
-- it could not be read.
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

-- Every entry, of ordinary and system accounts alike: for what adds up transactions and books.
CREATE VIEW ledger.all_entries AS
    SELECT account, version, transaction_id, direction, amount, balance::numeric AS balance,
           time, partition, sequence
    FROM ledger.entries
    UNION ALL
    SELECT account, version, transaction_id, direction, amount, balance,
           time, partition, sequence
    FROM ledger.system_entries;
