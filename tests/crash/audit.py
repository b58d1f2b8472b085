"""The independent audit: every topic of the ledger is read, and all of it must tell one story.

Commands against the journal, the journal against `transactions` and `state`, all of them against
what the commands themselves ask for, added up naively. It shares no code with the processor.
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

# As docs/rules.md and the published schemas have them: part of the wire, not of the program.
NAMESPACE = uuid.UUID("5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11")
WALLETS_ONLY_NAMESPACE = uuid.UUID("c1d8e0f2-3b6a-5c47-9e15-2f7a64b0d8c3")
TICK = b'{"message":"tick"}'
NEVER_READ = frozenset(
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
    """`update` reads what is new; `settled` says whether all that was sent is over and done with;
    `verify` compares everything with everything and returns the differences."""

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
        # Where `coordination` began each time that it was read: what lay before may be unseen, as
        # owners delete what they have read.
        self._begins: list[set[int]] = [set() for _ in range(partitions)]
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
        # The journal first: what it answers must be there when the inputs are read after it.
        for record in self._topics["journal"].news():
            self.books[record.partition].fold(record.offset, record.value or b"")
        for record in self._topics["commands"].news():
            self.commands[record.partition][record.offset] = record
        for record in self._topics["coordination"].news():
            self.messages[record.partition][record.offset] = record
        for begins, (low, _) in zip(
            self._begins, self._topics["coordination"].ranges(), strict=True
        ):
            begins.add(low)

    def settled(self) -> bool:
        """Every command and message has its record, and nothing is under way between partitions."""
        self.update()
        return not (self.unanswered() or self.undecided() or self._on_the_way())

    def unanswered(self) -> int:
        """Records of `commands` and `coordination` that the journal does not have yet."""
        sides = zip(self.books, self.commands, self.messages, strict=True)
        return sum(
            len(commands.keys() - books.told.keys()) + len(messages.keys() - books.messages.keys())
            for books, commands, messages in sides
        )

    def positions(self) -> set[tuple[int, int]]:
        """Partition and offset of every command that a reader sees."""
        return {(number, offset) for number, all in enumerate(self.commands) for offset in all}

    def undecided(self) -> int:
        return sum(len(books.undecided) + len(books.prepared) for books in self.books)

    def _on_the_way(self) -> dict[tuple[str, str], int]:
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
        for record in self._topics["transactions"].news():
            self._transactions[record.partition].append(record)
        for record in self._topics["state"].news():
            kept = self._state[record.partition]
            if record.value is None:
                kept.pop(record.key or b"", None)
            else:
                kept[record.key or b""] = record.value
        self.dead = list(self._topics["commands_dead"].news())
        for number, books in enumerate(self.books):
            self._same_positions(number, books, quiet, max(self._begins[number]))
            self._same_transactions(number, books)
            self._same_state(number, books)
        self._same_dead_letters()
        self._numbered_coordination()
        self._identities()
        self._transit(quiet)
        if quiet:
            self._expected_balances()
        found = list(self.differences.lines)
        if self.differences.count > len(found):
            found.append(f"... and {self.differences.count - len(found)} more")
        return found

    # One outcome for each position

    def _same_positions(self, number: int, books: AuditedBooks, quiet: bool, low: int) -> None:
        note, commands = self.differences.note, self.commands[number]
        for offset in sorted(books.told.keys() - commands.keys()):
            note(f"journal {number} answers command {offset}, which no reader sees")
        if quiet:
            for offset in sorted(commands.keys() - books.told.keys()):
                note(f"commands {number}:{offset} has no outcome")
            for offset, transaction in books.undecided.items():
                note(f"commands {number}:{offset} is still pending, {transaction}")
            for transaction in books.prepared:
                note(f"journal {number}: {transaction} is still prepared")
        for offset in books.told.keys() & commands.keys():
            where = f"commands {number}:{offset}"
            digest = books.told[offset].digest
            self.differences.same(where, "digest in journal", digest, commands[offset].digest)
        messages = self.messages[number]
        for offset in sorted(books.messages.keys() - messages.keys()):
            if offset >= low:
                note(f"journal {number} answers message {offset}, which no reader sees")
        for offset in sorted(messages.keys() - books.messages.keys()) if quiet else ():
            # A tick may be the last that an owner does before it stops.
            if (messages[offset].value or b"") != TICK:
                note(f"coordination messages {number}:{offset} has no record")
        for offset in books.messages.keys() & messages.keys():
            where = f"coordination messages {number}:{offset}"
            self.differences.same(where, "digest", books.messages[offset], messages[offset].digest)

    def _numbered_coordination(self) -> None:
        """Between two partitions each number once, in order; of messages that were seen without a
        break."""
        for number, messages in enumerate(self.messages):
            last: dict[int, int] = {}
            before = -1
            for offset, record in messages.items():
                if any(before < begin <= offset for begin in self._begins[number]):
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

    def _same_dead_letters(self) -> None:
        letters: Counter[tuple[int, int]] = Counter()
        for record in self.dead:
            letter = json.loads(record.value or b"null")
            position = letter["partition"], letter["offset"]
            letters[position] += 1
            told = self.books[position[0]].told.get(position[1])
            where = f"dead letter of {position}"
            if told is None:
                self.differences.note(f"{where}: the journal has no such command")
                continue
            found = letter["reason"], letter["digest"]
            self.differences.same(where, "reason, digest", found, (told.reason, told.digest))
        for number, books in enumerate(self.books):
            for offset, told in books.told.items():
                due = told.step == "refused" and told.reason in NEVER_READ
                times = letters[number, offset]
                if times != due:
                    where = f"commands {number}:{offset}, {told.step} {told.reason}"
                    self.differences.note(f"{where}: {times} dead letters, expected {due:d}")

    # The same books, three times

    def _same_transactions(self, number: int, books: AuditedBooks) -> None:
        told = []
        for record in self._transactions[number]:
            one = json.loads(record.value or b"null")
            told.append(
                (
                    one["sequence"],
                    one["transaction_id"],
                    one["account_id"],
                    one["entry"],
                    one["amount"],
                    one["balance"],
                    one["version"],
                    one["held"],
                    one["available"],
                    one["currency"],
                    one["user_id"],
                )
            )
        if told == books.entries:
            return
        where = f"transactions {number}"
        missing, extra = (
            Counter(books.entries) - Counter(told),
            Counter(told) - Counter(books.entries),
        )
        for entry, times in missing.items():
            self.differences.note(f"{where} lacks {times} of {entry}")
        for entry, times in extra.items():
            self.differences.note(f"{where} has {times} too many of {entry}")
        if not missing and not extra:
            self.differences.note(f"{where} has another order than the journal")

    def _same_state(self, number: int, books: AuditedBooks) -> None:
        state = {key: msgspec.msgpack.decode(value) for key, value in self._state[number].items()}
        same, where = self.differences.same, f"state {number}"
        by_kind: defaultdict[bytes, dict[bytes, Any]] = defaultdict(dict)
        for key, value in state.items():
            by_kind[key[:1]][key[1:]] = value
        accounts = {key.decode(): tuple(value) for key, value in by_kind[b"a"].items()}
        expected = {
            id: (
                one.type,
                one.currency,
                one.status,
                one.owner,
                one.min_balance,
                one.balance,
                one.held,
                one.incoming,
                one.version,
                one.metadata,
            )
            for id, one in books.accounts.items()
        }
        self._same_map(f"{where}, account", accounts, expected)
        shards = {key.decode(): (int(b), v) for key, (b, v) in by_kind[b"s"].items()}
        self._same_map(f"{where}, shard", shards, books.shards)
        statuses = {str(uuid.UUID(bytes=key)): value[1] for key, value in by_kind[b"t"].items()}
        self._same_map(f"{where}, transaction", statuses, _statuses(books))
        holds = {str(uuid.UUID(bytes=key)): value[4] for key, value in by_kind[b"h"].items()}
        self._same_map(f"{where}, hold", holds, books.holds)
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
        same(where, "position in commands", commands[0], max(books.told, default=-1) + 1)
        same(
            where,
            "position in coordination messages",
            messages[0],
            max(books.messages, default=-1) + 1,
        )
        same(where, "pending", partition[7], len(books.undecided))

    def _same_map(self, where: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
        if found == expected:
            return
        for key in found.keys() | expected.keys():
            self.differences.same(where, key, found.get(key), expected.get(key))

    def _transit(self, quiet: bool) -> None:
        """What left one partition and has not come to the other is what transit holds."""
        on_the_way = self._on_the_way()
        if quiet:
            self.differences.same("all partitions", "transit", on_the_way, {})
            return
        prepared = {transaction for books in self.books for transaction in books.prepared}
        for (transaction, currency), amount in on_the_way.items():
            if transaction not in prepared:
                self.differences.note(
                    f"{amount} {currency} of {transaction} are in transit to nobody"
                )

    # Against the commands themselves

    def _owned(self) -> Iterator[tuple[str, Command, AuditedOutcome, AuditedOutcome | None]]:
        """The commands that own their id, each with its own record and the later decision."""
        for number, books in enumerate(self.books):
            for offset, told in books.told.items():
                record = self.commands[number].get(offset)
                if told.step not in ("posted", "rejected", "pending") or record is None:
                    continue
                where, command = f"{number}:{offset}", _command(record.value or b"")
                if command is None:
                    self.differences.note(f"commands {where} cannot be read, but is {told.step}")
                else:
                    yield where, command, told, books.decided.get(offset)

    def _identities(self) -> None:
        """An account's key is owned by one command; all others of it are replays or refused."""
        first: dict[str, str] = {}
        for where, command, told, _ in self._owned():
            id = _identity(command)
            self.differences.same(where, "transaction id", told.transaction, id)
            if id in first:
                self.differences.note(f"commands {where} owns {id}, as {first[id]} did before")
            first[id] = where
        for number, books in enumerate(self.books):
            for offset, told in books.told.items():
                if told.step == "replayed" and told.transaction not in first:
                    self.differences.note(f"commands {number}:{offset} replays nothing")

    def _expected_balances(self) -> None:
        """What the posted commands ask for, added up: nothing of how the journal tells it."""
        commands: dict[str, tuple[Command, int]] = {}
        posted = []
        for where, command, told, decided in self._owned():
            outcome = decided or told
            if outcome.step == "posted":
                id = _identity(command)
                commands[id] = command, outcome.fee
                posted.append(id)
                if command["kind"] == "transfer":
                    full = (command["amount"] * self._bps + 5_000) // 10_000
                    if outcome.fee not in (0, full):
                        self.differences.note(f"commands {where}: a fee of {outcome.fee}")
        types = {id: one for books in self.books for id, one in books.accounts.items()}
        balances: Counter[str] = Counter()
        for id in posted:
            for account, direction, amount in _effects(id, commands):
                if account in types:
                    raised = types[account].raised_by(direction)
                    balances[account] += amount if raised else -amount
                elif not account.startswith("system:"):
                    self.differences.note(f"{id} moves money of {account}, which is not there")
        for account, one in types.items():
            self.differences.same("commands say", account, one.balance, balances[account])


def _command(value: bytes) -> Command | None:
    try:
        command = json.loads(value)
    except ValueError:
        return None
    return command if isinstance(command, dict) and "account" in command else None


def _identity(command: Command) -> str:
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
            whole = commands[command["hold_id"]][0]["amount"]
            moved = amount or whole
            to = command.get("to") or "system:funding"
            return [(account, "debit", moved), (to, "credit", moved)]
        case "reverse":
            other = {"debit": "credit", "credit": "debit"}
            original = _effects(command["transaction_id"], commands)
            return [(name, other[direction], moved) for name, direction, moved in original]
    return []


def _statuses(books: AuditedBooks) -> dict[str, str]:
    found = {}
    for offset, told in books.told.items():
        if told.step in ("posted", "rejected", "pending") and told.transaction is not None:
            found[told.transaction] = books.decided.get(offset, told).step
    return found
