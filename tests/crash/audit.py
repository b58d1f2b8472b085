"""The independent audit: it reads every topic of the ledger and compares them with each other.

It compares commands with the journal, the journal with `transactions` and `state`, and all of them
with the sums that the commands request. It must not know the code of the processor or of verify.
"""

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.topics import Names
from tests.crash.audited_books import AuditDifferences, AuditedBooks, AuditedOutcome
from tests.crash.committed_topic import CommittedRecord, CommittedTopic

# As docs/rules.md and the published schemas define them.
NAMESPACE = uuid.UUID("5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11")
WALLETS_ONLY_NAMESPACE = uuid.UUID("c1d8e0f2-3b6a-5c47-9e15-2f7a64b0d8c3")
TICK = b'{"message":"tick"}'
DEAD_LETTER_REASONS = frozenset(
    {
        "too_large",
        "schema_unknown",
        "malformed",
        "unknown_field",
        "amount_invalid",
        "time_out_of_range",
        "misrouted",
    }
)

Command = dict[str, Any]
# Account, direction, amount.
Effect = tuple[str, str, int]


class Audit:
    """`update` reads new records; `settled` tells whether all that was sent is decided; `verify`
    compares all topics and returns the differences."""

    def __init__(
        self,
        client: dict[str, str | int | float | bool],
        names: Names,
        partitions: int,
        bps: int = 150,
    ) -> None:
        self.differences = AuditDifferences()
        self.books = [AuditedBooks(number, self.differences) for number in range(partitions)]
        self.commands: list[dict[int, CommittedRecord]] = [{} for _ in range(partitions)]
        self.messages: list[dict[int, CommittedRecord]] = [{} for _ in range(partitions)]
        # The first offsets of `coordination`, each time that it was read. The audit may not see
        # earlier messages, because processors delete what they have read.
        self._start_offsets: list[set[int]] = [set() for _ in range(partitions)]
        self.dead: list[CommittedRecord] = []
        self._bps = bps
        self._state: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        self._transactions: list[list[CommittedRecord]] = [[] for _ in range(partitions)]
        self._topics = {
            name: CommittedTopic(
                client, getattr(names, name), 1 if name == "commands_dead" else partitions
            )
            for name in (
                "commands",
                "coordination",
                "journal",
                "transactions",
                "state",
                "commands_dead",
            )
        }

    def close(self) -> None:
        for topic in self._topics.values():
            topic.close()

    def __enter__(self) -> "Audit":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self) -> None:
        # The journal comes first, so that the inputs of its records are there when read.
        for record in self._topics["journal"].new_records():
            self.books[record.partition].fold(record.offset, record.value or b"")
        for record in self._topics["commands"].new_records():
            self.commands[record.partition][record.offset] = record
        for record in self._topics["coordination"].new_records():
            self.messages[record.partition][record.offset] = record
        for start_offsets, (first_offset, _) in zip(
            self._start_offsets, self._topics["coordination"].ranges(), strict=True
        ):
            start_offsets.add(first_offset)

    def settled(self) -> bool:
        """Whether each input has its record, and nothing is in flight between partitions."""
        self.update()
        return not (self.without_outcome() or self.undecided() or self._transit_in_flight())

    def without_outcome(self) -> int:
        """How many inputs the journal does not have yet."""
        sides = zip(self.books, self.commands, self.messages, strict=True)
        return sum(
            len(commands.keys() - books.outcomes.keys())
            + len(messages.keys() - books.messages.keys())
            for books, commands, messages in sides
        )

    def positions(self) -> set[tuple[int, int]]:
        """Partition and offset of each committed command."""
        return {
            (number, offset) for number, records in enumerate(self.commands) for offset in records
        }

    def undecided(self) -> int:
        return sum(len(books.undecided) + len(books.prepared) for books in self.books)

    def _transit_in_flight(self) -> dict[tuple[str, str], int]:
        total: Counter[tuple[str, str]] = Counter()
        for books in self.books:
            for key, amount in books.transit.items():
                total[key] += amount
        return {key: amount for key, amount in total.items() if amount}

    def figures(self) -> dict[str, Any]:
        steps: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for books in self.books:
            steps += books.steps
            reasons += books.reasons
        return {
            "commands": sum(map(len, self.commands)),
            "coordination": sum(len(books.messages) for books in self.books),
            "journal": sum(books.sequence for books in self.books),
            "dead letters": len(self.dead),
            "steps": dict(steps.most_common()),
            "reasons": dict(reasons.most_common()),
        }

    def verify(self, *, quiet: bool = True) -> list[str]:
        """`quiet`: nothing is under way, and transit must be zero. Call it once."""
        self.update()
        for record in self._topics["transactions"].new_records():
            self._transactions[record.partition].append(record)
        for record in self._topics["state"].new_records():
            kept = self._state[record.partition]
            if record.value is None:
                kept.pop(record.key or b"", None)
            else:
                kept[record.key or b""] = record.value
        self.dead = list(self._topics["commands_dead"].new_records())
        for number, books in enumerate(self.books):
            self._compare_inputs(number, books, quiet, max(self._start_offsets[number]))
            self._compare_transactions(number, books)
            self._compare_state(number, books)
        self._compare_dead_letters()
        self._check_message_numbers()
        self._check_transaction_ids()
        self._check_transit(quiet)
        if quiet:
            self._check_balances()
        differences = list(self.differences.lines)
        if self.differences.count > len(differences):
            differences.append(f"... and {self.differences.count - len(differences)} more")
        return differences

    # One outcome for each position

    def _compare_inputs(
        self, number: int, books: AuditedBooks, quiet: bool, first_offset: int
    ) -> None:
        note, commands = self.differences.note, self.commands[number]
        for offset in sorted(books.outcomes.keys() - commands.keys()):
            note(f"journal {number} has command {offset}, which is not in the topic")
        if quiet:
            for offset in sorted(commands.keys() - books.outcomes.keys()):
                note(f"commands {number}:{offset} has no outcome")
            for offset, transaction in books.undecided.items():
                note(f"commands {number}:{offset} is still pending, {transaction}")
            for transaction in books.prepared:
                note(f"journal {number}: {transaction} is still prepared")
        for offset in books.outcomes.keys() & commands.keys():
            where = f"commands {number}:{offset}"
            digest = books.outcomes[offset].digest
            self.differences.same(where, "digest in journal", digest, commands[offset].digest)
        messages = self.messages[number]
        for offset in sorted(books.messages.keys() - messages.keys()):
            if offset >= first_offset:
                note(f"journal {number} has message {offset}, which is not in the topic")
        for offset in sorted(messages.keys() - books.messages.keys()) if quiet else ():
            # A processor may write a tick just before it stops.
            if (messages[offset].value or b"") != TICK:
                note(f"coordination messages {number}:{offset} has no record")
        for offset in books.messages.keys() & messages.keys():
            where = f"coordination messages {number}:{offset}"
            self.differences.same(where, "digest", books.messages[offset], messages[offset].digest)

    def _check_message_numbers(self) -> None:
        """Between two partitions each number occurs once, in order. Checks unbroken ranges only."""
        for number, messages in enumerate(self.messages):
            last: dict[int, int] = {}
            before = -1
            for offset, record in messages.items():
                if any(
                    before < start_offset <= offset for start_offset in self._start_offsets[number]
                ):
                    last.clear()
                before = offset
                message = json.loads(record.value or b"null")
                if not isinstance(message, dict) or "number" not in message:
                    continue
                source = message["source"]
                expected = last.get(source, message["number"] - 1) + 1
                where = f"coordination messages {number}:{offset} from {source}"
                self.differences.same(where, "number", message["number"], expected)
                last[source] = message["number"]

    def _compare_dead_letters(self) -> None:
        letters: Counter[tuple[int, int]] = Counter()
        for record in self.dead:
            letter = json.loads(record.value or b"null")
            position = letter["partition"], letter["offset"]
            letters[position] += 1
            outcome = self.books[position[0]].outcomes.get(position[1])
            where = f"dead letter of {position}"
            if outcome is None:
                self.differences.note(f"{where}: the journal has no such command")
                continue
            refusal = letter["reason"], letter["digest"]
            self.differences.same(
                where, "reason, digest", refusal, (outcome.reason, outcome.digest)
            )
        for number, books in enumerate(self.books):
            for offset, outcome in books.outcomes.items():
                expected_count = outcome.step == "refused" and outcome.reason in DEAD_LETTER_REASONS
                count = letters[number, offset]
                if count != expected_count:
                    where = f"commands {number}:{offset}, {outcome.step} {outcome.reason}"
                    self.differences.note(
                        f"{where}: {count} dead letters, expected {expected_count:d}"
                    )

    # The topics that copy the books

    def _compare_transactions(self, number: int, books: AuditedBooks) -> None:
        published = []
        for record in self._transactions[number]:
            entry = json.loads(record.value or b"null")
            published.append(
                (
                    entry["sequence"],
                    entry["transaction_id"],
                    entry["account_id"],
                    entry["entry"],
                    entry["amount"],
                    entry["balance"],
                    entry["version"],
                    entry["held"],
                    entry["available"],
                    entry["currency"],
                    entry["user_id"],
                )
            )
        if published == books.entries:
            return
        where = f"transactions {number}"
        missing, extra = (
            Counter(books.entries) - Counter(published),
            Counter(published) - Counter(books.entries),
        )
        for entry, count in missing.items():
            self.differences.note(f"{where} lacks {count} of {entry}")
        for entry, count in extra.items():
            self.differences.note(f"{where} has {count} too many of {entry}")
        if not missing and not extra:
            self.differences.note(f"{where} has another order than the journal")

    def _compare_state(self, number: int, books: AuditedBooks) -> None:
        state = {key: msgspec.msgpack.decode(value) for key, value in self._state[number].items()}
        same, where = self.differences.same, f"state {number}"
        by_kind: defaultdict[bytes, dict[bytes, Any]] = defaultdict(dict)
        for key, value in state.items():
            by_kind[key[:1]][key[1:]] = value
        accounts = {key.decode(): tuple(value) for key, value in by_kind[b"a"].items()}
        expected = {
            id: (
                account.type,
                account.currency,
                account.status,
                account.owner,
                account.min_balance,
                account.balance,
                account.held,
                account.incoming,
                account.version,
                account.metadata,
            )
            for id, account in books.accounts.items()
        }
        self._compare_maps(f"{where}, account", accounts, expected)
        shards = {key.decode(): (int(b), v) for key, (b, v) in by_kind[b"s"].items()}
        self._compare_maps(f"{where}, shard", shards, books.shards)
        statuses = {str(uuid.UUID(bytes=key)): value[1] for key, value in by_kind[b"t"].items()}
        self._compare_maps(f"{where}, transaction", statuses, _statuses(books))
        holds = {str(uuid.UUID(bytes=key)): value[4] for key, value in by_kind[b"h"].items()}
        self._compare_maps(f"{where}, hold", holds, books.holds)
        prepared = {str(uuid.UUID(bytes=key)) for key in by_kind[b"r"]}
        same(where, "prepared", prepared, set(books.prepared))
        due = {str(uuid.UUID(bytes=key[8:])) for key in by_kind[b"x"]}
        open_holds = {id for id, status in books.holds.items() if status == "open"}
        same(where, "due", due, open_holds | set(books.undecided.values()))
        if b"p" not in state:
            self.differences.note(f"{where} has no position")
            return
        partition, commands, messages, last_hash, incarnation = state[b"p"][:5]
        same(where, "bytes of the incarnation", len(incarnation), 16)
        same(where, "sequence, time", (partition[3], partition[4]), (books.sequence, books.time_ms))
        same(where, "last hash", last_hash, books.hash)
        same(where, "position in commands", commands[0], max(books.outcomes, default=-1) + 1)
        same(
            where,
            "position in coordination messages",
            messages[0],
            max(books.messages, default=-1) + 1,
        )
        same(where, "pending", partition[7], len(books.undecided))

    def _compare_maps(self, where: str, actual: dict[str, Any], expected: dict[str, Any]) -> None:
        if actual == expected:
            return
        for key in actual.keys() | expected.keys():
            self.differences.same(where, key, actual.get(key), expected.get(key))

    def _check_transit(self, quiet: bool) -> None:
        """Transit must equal the money that left one partition and has not reached the other."""
        transit_in_flight = self._transit_in_flight()
        if quiet:
            self.differences.same("all partitions", "transit", transit_in_flight, {})
            return
        prepared = {transaction for books in self.books for transaction in books.prepared}
        for (transaction, currency), amount in transit_in_flight.items():
            if transaction not in prepared:
                self.differences.note(
                    f"{amount} {currency} of {transaction} are in transit without a participant"
                )

    # Against the commands

    def _owning_commands(
        self,
    ) -> Iterator[tuple[str, Command, AuditedOutcome, AuditedOutcome | None]]:
        """The commands that own a transaction id, each with its record and its later decision."""
        for number, books in enumerate(self.books):
            for offset, outcome in books.outcomes.items():
                record = self.commands[number].get(offset)
                if outcome.step not in ("posted", "rejected", "pending") or record is None:
                    continue
                where, command = f"{number}:{offset}", _command(record.value or b"")
                if command is None:
                    self.differences.note(
                        f"commands {where} cannot be decoded, but is {outcome.step}"
                    )
                else:
                    yield where, command, outcome, books.decisions.get(offset)

    def _check_transaction_ids(self) -> None:
        """One command owns each transaction id. Others with its key are replayed or refused."""
        owners: dict[str, str] = {}
        for where, command, outcome, _ in self._owning_commands():
            id = _transaction_id(command)
            self.differences.same(where, "transaction id", outcome.transaction, id)
            if id in owners:
                self.differences.note(
                    f"commands {where} owns {id}, which {owners[id]} already owns"
                )
            owners[id] = where
        for number, books in enumerate(self.books):
            for offset, outcome in books.outcomes.items():
                if outcome.step == "replayed" and outcome.transaction not in owners:
                    self.differences.note(f"commands {number}:{offset} replays nothing")

    def _check_balances(self) -> None:
        """Adds up the posted commands, without the entries of the journal."""
        commands: dict[str, tuple[Command, int]] = {}
        posted = []
        for where, command, own_outcome, decision in self._owning_commands():
            outcome = decision or own_outcome
            if outcome.step == "posted":
                id = _transaction_id(command)
                commands[id] = command, outcome.fee
                posted.append(id)
                if command["kind"] == "transfer":
                    full = (command["amount"] * self._bps + 5_000) // 10_000
                    if outcome.fee not in (0, full):
                        self.differences.note(f"commands {where}: a fee of {outcome.fee}")
        accounts = {id: account for books in self.books for id, account in books.accounts.items()}
        balances: Counter[str] = Counter()
        for id in posted:
            for name, direction, amount in _effects(id, commands):
                if name in accounts:
                    raises = accounts[name].raises_balance(direction)
                    balances[name] += amount if raises else -amount
                elif not name.startswith("system:"):
                    self.differences.note(f"{id} moves money of {name}, which does not exist")
        for id, account in accounts.items():
            self.differences.same("commands say", id, account.balance, balances[id])


def _command(value: bytes) -> Command | None:
    try:
        command = json.loads(value)
    except ValueError:
        return None
    return command if isinstance(command, dict) and "account" in command else None


def _transaction_id(command: Command) -> str:
    key = command.get("idempotency_key")
    namespace = WALLETS_ONLY_NAMESPACE if command.get("wallets_only") else NAMESPACE
    account = uuid.uuid5(namespace, command["account"])
    return str(uuid.uuid5(account, command["id"] if key is None else key))


def _effects(id: str, commands: dict[str, tuple[Command, int]]) -> list[Effect]:
    command, fee = commands[id]
    account: str = command["account"]
    amount: int = command.get("amount") or 0
    match command["kind"]:
        case "credit":
            return [(account, "credit", amount)]
        case "debit":
            return [(account, "debit", amount)]
        case "transfer":
            return [(account, "debit", amount + fee), (command["to"], "credit", amount)]
        case "post":
            return [(e["account"], e["direction"], e["amount"]) for e in command["entries"]]
        case "capture":
            held_amount = commands[command["hold_id"]][0]["amount"]
            captured_amount = amount or held_amount
            to = command.get("to") or "system:funding"
            return [(account, "debit", captured_amount), (to, "credit", captured_amount)]
        case "reverse":
            other = {"debit": "credit", "credit": "debit"}
            original = _effects(command["transaction_id"], commands)
            return [(name, other[direction], moved) for name, direction, moved in original]
    return []


def _statuses(books: AuditedBooks) -> dict[str, str]:
    statuses = {}
    for offset, outcome in books.outcomes.items():
        if outcome.step in ("posted", "rejected", "pending") and outcome.transaction is not None:
            statuses[outcome.transaction] = books.decisions.get(offset, outcome).step
    return statuses
