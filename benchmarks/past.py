"""A database with a past: one account with a history as long as asked, among others without, and
two of one owner with many transfers between them.

Rows are made as the sink would have left them: they hold under every constraint, versions have no
gaps, time does not fall, each transaction's entries balance and so do the books. They come by COPY,
and the indexes after them. It must not know what is read.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from schemas import ids
from schemas.ids import AccountId
from schemas.partitioning import partition_of

BUSY = "busy"
OWNER = "user-0000000"
OWNER_OF_TWO = "user-of-two"
PARTITIONS = 8
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=360)
# Of the busy account's entries one in so many may be a transfer to another account, has a
# reference of its own, has the one that they share, may be a capture, a reversal, is out of line.
TRANSFERS, REFERENCES, SHARED, CAPTURES, REVERSALS, LARGE = 10, 10, 1_000, 100, 10_000, 10_000
SHARED_REFERENCE = "rent"
LARGE_AMOUNT = 10_000_000
# Beside them, for each so many: a credit to some other account, and a debit that was rejected.
ELSEWHERE, REJECTED = 20, 50
# And a transfer between two accounts of one owner.
BETWEEN = 10
CURRENCIES = ("NGN", "NGN", "USD", "KES")
CHUNK = 5_000

ENTRIES = (
    "COPY ledger.entries (version, amount, balance, held, sequence, time, transaction_id,"
    " direction, partition, account) FROM STDIN"
)
TRANSACTIONS = (
    "COPY ledger.transactions (sequence, decided_sequence, source_offset, amount, fee, time,"
    " decided_at, id, status, commission_bps, partition, kind, account, counterparty, reason,"
    " label, reference, description) FROM STDIN"
)


class Filled(NamedTuple):
    rows: int
    copy_s: float
    indexes_s: float


class _Account:
    __slots__ = ("balance", "currency", "id", "owner", "partition", "version")

    def __init__(self, id: str, currency: str, owner: str) -> None:
        self.id = id
        self.owner = owner
        self.currency = currency
        self.partition = partition_of(id, PARTITIONS)
        self.balance = self.version = 0


class _Books:
    """What has happened so far; each step adds the lines of its rows, as COPY takes them."""

    def __init__(self, others: int, seed: int) -> None:
        self.busy = _Account(BUSY, "NGN", OWNER)
        self.purse, self.savings = (
            _Account(id, "NGN", OWNER_OF_TWO) for id in ("purse", "savings")
        )
        self.others = [
            _Account(f"wallet-{n:07}", CURRENCIES[n % len(CURRENCIES)], f"user-{n + 1:07}")
            for n in range(others)
        ]
        self.of_busy_currency = [each for each in self.others if each.currency == "NGN"]
        self.dice = random.Random(seed)
        self.sequences = [0] * PARTITIONS
        self.funding: Counter[tuple[str, int]] = Counter()
        self.funding_entries: Counter[tuple[str, int]] = Counter()
        self.entries: list[str] = []
        self.transactions: list[str] = []

    def step(self, number: int, at: str) -> None:
        """The busy account's next entry, and what happens beside it."""
        dice, busy = self.dice, self.busy
        amount = LARGE_AMOUNT + number if number % LARGE == 0 else dice.randrange(100, 100_000)
        reference = "\\N"
        if number % SHARED == 0:
            reference = SHARED_REFERENCE
        elif number % REFERENCES == 1:
            reference = f"reference-{number}"
        if amount > busy.balance or dice.random() < 0.45:
            self._funded(busy, "credit", amount, reference, at)
        elif number % TRANSFERS == 0:
            to = dice.choice(self.of_busy_currency)
            self._sent(busy, to, amount, reference, at)
        else:
            kind = "debit"
            if number % REVERSALS == 3:
                kind = "reverse"
            elif number % CAPTURES == 3:
                kind = "capture"
            self._funded(busy, kind, amount, reference, at)
        if number % ELSEWHERE == 0:
            self._funded(dice.choice(self.others), "credit", amount, "\\N", at)
        if number % REJECTED == 0:
            self._made(busy, "debit", amount, "\\N", at, reason="insufficient_funds")
        if number % BETWEEN == 0:
            self._between(amount, at)

    def _between(self, amount: int, at: str) -> None:
        """From one to the other while it has enough, then back."""
        purse, savings = self.purse, self.savings
        if savings.balance >= amount > purse.balance:
            self._sent(savings, purse, amount, "\\N", at)
            return
        if amount > purse.balance:
            self._funded(purse, "credit", LARGE_AMOUNT * 10, "\\N", at)
        self._sent(purse, savings, amount, "\\N", at)

    def _sent(self, account: _Account, to: _Account, amount: int, reference: str, at: str) -> None:
        id = self._made(account, "transfer", amount, reference, at, counterparty=to.id)
        self._entry(account, "debit", amount, id, at)
        self._entry(to, "credit", amount, id, at)

    def _funded(self, account: _Account, kind: str, amount: int, reference: str, at: str) -> None:
        id = self._made(account, kind, amount, reference, at)
        direction = "credit" if kind == "credit" else "debit"
        self._entry(account, direction, amount, id, at)
        shard = account.currency, account.partition
        self.funding[shard] += amount if direction == "credit" else -amount
        self.funding_entries[shard] += 1

    def _made(
        self,
        account: _Account,
        kind: str,
        amount: int,
        reference: str,
        at: str,
        *,
        counterparty: str = "\\N",
        reason: str = "\\N",
    ) -> str:
        partition = account.partition
        sequence = self.sequences[partition] = self.sequences[partition] + 1
        label = f"{partition}-{sequence}"
        id = ids.transaction_id(AccountId(account.id), label)
        status = "posted" if reason == "\\N" else "rejected"
        self.transactions.append(
            f"{sequence}\t{sequence}\t{sequence}\t{amount}\t0\t{at}\t{at}\t{id}\t{status}\t150"
            f"\t{partition}\t{kind}\t{account.id}\t{counterparty}\t{reason}\t{label}\t{reference}"
            f"\tpayment {sequence} of the year\n"
        )
        return id

    def _entry(self, account: _Account, direction: str, amount: int, id: str, at: str) -> None:
        account.version += 1
        account.balance += amount if direction == "credit" else -amount
        sequence = self.sequences[account.partition]
        self.entries.append(
            f"{account.version}\t{amount}\t{account.balance}\t0\t{sequence}\t{at}\t{id}"
            f"\t{direction}\t{account.partition}\t{account.id}\n"
        )


def fill(database: str, entries: int, others: int, seed: int = 1) -> Filled:
    """The busy account gets so many entries, in even steps of time."""
    books = _Books(others, seed)
    rows = 0
    with psycopg.connect(database) as connection, psycopg.connect(database) as beside:
        again = _without_indexes(connection)
        began = time.monotonic()
        with (
            connection.cursor().copy(ENTRIES) as to_entries,
            beside.cursor().copy(TRANSACTIONS) as to_transactions,
        ):
            for number, at in enumerate(_times(entries), 1):
                books.step(number, at)
                if number % CHUNK == 0 or number == entries:
                    rows += len(books.entries) + len(books.transactions)
                    to_entries.write("".join(books.entries))
                    to_transactions.write("".join(books.transactions))
                    books.entries.clear()
                    books.transactions.clear()
        beside.commit()
        _keep_accounts(connection, books)
        connection.commit()
        copied = time.monotonic()
        _with_indexes(connection, again)
        connection.commit()
        connection.autocommit = True
        # As autovacuum leaves a table that only grows.
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    return Filled(rows, copied - began, time.monotonic() - copied)


def _times(count: int) -> Iterator[str]:
    step = SPAN / count
    return (str(BEGAN + number * step) for number in range(count))


def _keep_accounts(connection: Connection[TupleRow], books: _Books) -> None:
    with connection.cursor().copy(
        "COPY ledger.accounts (balance, held, incoming, version, sequence, min_balance, opened_at,"
        " type, status, partition, currency, id, owner) FROM STDIN"
    ) as copy:
        for each in [books.busy, books.purse, books.savings, *books.others]:
            copy.write_row(
                (
                    *(each.balance, 0, 0, each.version, books.sequences[each.partition], 0, BEGAN),
                    *("wallet", "open", each.partition, each.currency),
                    *(each.id, each.owner),
                )
            )
    connection.cursor().executemany(
        "INSERT INTO ledger.system_accounts VALUES (%s, %s, %s, 'funding', %s, %s, %s)",
        [
            (
                books.funding[shard],
                count,
                books.sequences[shard[1]],
                shard[1],
                shard[0],
                ids.system_shard(ids.FUNDING, *shard),
            )
            for shard, count in books.funding_entries.items()
        ],
    )
    connection.cursor().executemany(
        "INSERT INTO ledger.positions VALUES (%s, 'benchmark', %s, %s, repeat('0', 64), %s, 1)",
        [
            (partition, sequence, sequence, BEGAN + SPAN)
            for partition, sequence in enumerate(books.sequences)
            if sequence
        ],
    )


# How each is dropped, and how it is made again.
_KEYS = """
SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname),
       'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT ' || quote_ident(conname) || ' '
           || pg_get_constraintdef(oid)
FROM pg_constraint
WHERE contype = 'p' AND conrelid = ANY(%s::regclass[])
"""
_INDEXES = """
SELECT 'DROP INDEX ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
FROM pg_index
WHERE NOT indisprimary AND indrelid = ANY(%s::regclass[])
"""
_GROWN = ["ledger.entries", "ledger.transactions"]


def _without_indexes(connection: Connection[TupleRow]) -> list[str]:
    """Takes the indexes of what grows away; returns what makes them again."""
    again = []
    for query in (_KEYS, _INDEXES):
        for drop, make in connection.execute(query, [_GROWN]).fetchall():
            connection.execute(drop)
            again.append(make)
    connection.commit()
    return again


def _with_indexes(connection: Connection[TupleRow], again: list[str]) -> None:
    connection.execute("SET maintenance_work_mem = '512MB'")
    for statement in again:
        connection.execute(statement.encode())
