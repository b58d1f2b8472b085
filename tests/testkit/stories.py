"""Small stories about a few partitions, and the stage that plays them through the real rules.

A story has a step in each line (or between semicolons): `step | what comes of it | what is so
afterwards`; the notation is told at `Stage.play`. Each step goes in as bytes, and after each one
the stage checks what must hold after any step at all. Decides nothing itself.
"""

import itertools
import json
import re
from collections import deque
from dataclasses import dataclass, field

import msgspec

from processor.rules import chain, engine, state_view
from processor.rules.decision import Decision, DecisionInput
from processor.rules.evolve import evolve
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from schemas import coordination, ids, journal, money, state_keys
from schemas import state as states
from schemas.coordination import CoordinationMessage
from schemas.encoding import codecs
from schemas.journal import JournalRecord
from schemas.ledger_parameters import RULES_VERSION, Genesis, LedgerParameters
from schemas.partitioning import partition_of
from schemas.published_records import TransactionRecord
from schemas.reasons import NEVER_FROZEN
from tests.testkit.builders import (
    ACCOUNT_TYPES,
    MAX,
    PARTITIONS,
    START_MS,
    Body,
    Words,
    account_id,
    amount,
    command,
    transaction,
)

LEDGER_ID = "stage"
AVRO = codecs.AvroSchemas()

encode = codecs.encode_json
decode_record = msgspec.json.Decoder(JournalRecord).decode
_decode_message = msgspec.json.Decoder(CoordinationMessage).decode

# Steps that leave all but the transaction's own outcome as it was.
_CHANGE_NOTHING = {"refused", "replayed", "duplicate", "ignored", "ticked"}


@dataclass
class Place:
    """One partition: its state, and another one that follows from its journal alone."""

    state: MemoryState
    replayed: MemoryState
    hash: str
    # The journal's values, as they would lie in the topic.
    journal: list[bytes] = field(default_factory=list)
    commands: int = 0
    coordination_read: int = 0
    # Coordination messages on their way here, by where they come from; the last one that was read.
    inbox: dict[int, deque[bytes]] = field(default_factory=dict)
    last_message: bytes = b""


class Stage:
    def __init__(self, **settings: int) -> None:
        self.now_ms = START_MS
        self.keys = itertools.count(1)
        self.last: list[Decision] = []
        self.published: list[TransactionRecord] = []
        self.places = []
        for number in range(PARTITIONS):
            genesis_hash = journal.genesis_hash(LEDGER_ID, number)
            place = Place(MemoryState(number), MemoryState(number), genesis_hash)
            self.places.append(place)
            first = coordination.Configure(
                settings=LedgerParameters(**{"rules_version": RULES_VERSION, **settings}),
                genesis=Genesis(ledger_id=LEDGER_ID, partitions=PARTITIONS),
            )
            self._apply(place, engine.genesis(number, first, encode(first)))

    def send(
        self,
        given: Body | bytes,
        *,
        partition: int | None = None,
        key: bytes | None = b"the account",
    ) -> list[Decision]:
        """A command in the topic, by its account's partition and key unless told otherwise."""
        value = given if isinstance(given, bytes) else json.dumps(given).encode()
        if isinstance(given, dict):
            account = given["account"]
            key = account.encode() if key == b"the account" else key
            partition = partition_of(account, PARTITIONS) if partition is None else partition
        place = self.places[partition or 0]
        message = codecs.decode_command(value, AVRO)
        input = input_of("commands", place.commands, key, value, self.now_ms, message)
        place.commands += 1
        decisions = self._apply(place, input)
        self._sent_again(place, input)
        return decisions

    def _sent_again(self, place: Place, input: DecisionInput) -> None:
        """Whatever owned its key is a replay from now on, with the same outcome."""
        first = self.last[-1].record
        if first.step in ("refused", "replayed"):
            return
        copy = place.state.copy()
        *due, decision = engine.apply(copy, input)
        again = decision.record
        assert (again.step, again.transaction_id) == ("replayed", first.transaction_id)
        assert (again.first_status, again.reason) == (first.step, first.reason)
        assert (again.entries, again.sent) == ((), ())
        # More may have been due than is taken at once.
        assert due or copy.values() == place.state.values()

    def message(self, partition: int, value: bytes) -> list[Decision]:
        place = self.places[partition]
        input = input_of(
            "coordination",
            place.coordination_read,
            None,
            value,
            self.now_ms,
            _decode_message(value),
        )
        place.coordination_read += 1
        place.last_message = value
        decisions = self._apply(place, input)
        if isinstance(input.message, coordination.NumberedMessage):
            copy = place.state.copy()
            assert engine.apply(copy, input)[-1].record.step == "duplicate"
            assert copy.values() == place.state.values()
        return decisions

    def deliver(self, partition: int, source: int | None = None) -> list[Decision]:
        """The next message on its way there, of one partition or of the first that has one."""
        inbox = self.places[partition].inbox
        waiting = [n for n in sorted(inbox) if inbox[n] and source in (None, n)]
        assert waiting, f"no message is on its way to partition {partition}"
        return self.message(partition, inbox[waiting[0]].popleft())

    def deliver_all(self) -> list[Decision]:
        decisions: list[Decision] = []
        while True:
            waiting = [n for n, place in enumerate(self.places) if any(place.inbox.values())]
            if not waiting:
                assert sum(self.system(ids.TRANSIT, n) for n in range(PARTITIONS)) == 0
                return decisions
            decisions += self.deliver(waiting[0])

    def _apply(self, place: Place, input: DecisionInput) -> list[Decision]:
        self.last = engine.apply(place.state, input)
        self.published = []
        for decision in self.last:
            self._journal(place, decision)
            for to, message in decision.messages:
                inbox = self.places[to].inbox
                source = place.state.partition.partition
                inbox.setdefault(source, deque()).append(encode(message))
            self.published += decision.transactions
        assert place.replayed.values() == place.state.values()
        assert place.replayed.partition == place.state.partition
        return self.last

    def _journal(self, place: Place, decision: Decision) -> None:
        value = chain.seal(decision.record, place.hash)
        record = decode_record(value)
        sealed = msgspec.structs.replace(decision.record, previous_hash=place.hash)
        assert record == sealed, "what is read back is what was decided"
        place.hash = journal.hash_of(value)
        place.journal.append(value)
        before = place.replayed.values()
        evolve(place.replayed, record)
        _check_record(record, before, place.replayed)
        _check_transactions(record, decision.transactions)

    # Facts

    def account(self, name: str) -> states.AccountState:
        found = state_view.account(self._state_of(name), account_id(name))
        assert found is not None, f"there is no account {name}"
        return found

    def _state_of(self, name: str) -> MemoryState:
        return self.places[partition_of(account_id(name), PARTITIONS)].state

    def transaction(self, account: str, key: str) -> states.TransactionState:
        found = state_view.transaction(self._state_of(account), transaction(account, key))
        assert found is not None, f"{account} has no transaction {key}"
        return found

    def hold(self, account: str, key: str) -> states.HoldState:
        found = state_view.hold(self._state_of(account), transaction(account, key))
        assert found is not None, f"{account} has no hold {key}"
        return found

    def system(self, role: str, partition: int = 0, currency: str = "NGN") -> int:
        shard = ids.system_shard(role, currency, partition)
        return int(state_view.system_account(self.places[partition].state, shard).balance)

    def journal(self, partition: int) -> list[JournalRecord]:
        return [decode_record(value) for value in self.places[partition].journal]

    # Stories

    def play(self, story: str) -> "Stage":
        """
        Steps: commands (`transfer a b1 100 key=k leaves=5`), accounts that are made (`a=100
        b1=0,owner:x,limit:-50,asset,USD,frozen`), `deliver 1`, `deliver 1 from 2`, `all` (each
        until none is left), `again 1` (the last message), `wait 60000`, `tick 0`,
        `configure 0 commission_bps=200`, `log_time 0 500` (the next command there is of a time
        500 ms from now, where its own is later).

        What comes of it: for each journal record its step, or the reason if it is rejected or
        refused (`declined:reason` at a participant). Where a story says nothing a command must be
        posted, whatever expires before it.

        Afterwards: `a=80,held:10,in:5,v:2,frozen` and what is sent, `fees=3`, `transit1=-5`, and
        `a/h=captured:20` of holds.
        """
        for line in re.split(r"[;\n]", story):
            if not line.strip():
                continue
            step, expected, after = [*line.split("|"), "", ""][:3]
            self._step(step.strip(), expected.split())
            for fact in after.split():
                self._fact(fact)
        return self

    def _step(self, step: str, expected: Words) -> None:
        words = step.split()
        match words:
            case ["wait", much]:
                self.now_ms += int(much)
                return
            case ["all"]:
                decisions = self.deliver_all()
            case ["deliver", partition]:
                decisions = self.deliver(int(partition))
            case ["deliver", partition, "from", source]:
                decisions = self.deliver(int(partition), int(source))
            case ["again", partition]:
                decisions = self.message(int(partition), self.places[int(partition)].last_message)
            case ["tick", partition]:
                decisions = self.message(int(partition), encode(coordination.Tick()))
            case ["log_time", partition, after]:
                decisions = self.message(int(partition), self._log_time(int(partition), int(after)))
            case ["configure", partition, *changes]:
                decisions = self.message(int(partition), self._configured(int(partition), changes))
            case [first, *_] if "=" in first:
                for word in words:
                    self._make(word)
                return
            case _:
                decisions = self.send(command(step, f"key-{next(self.keys)}"))
        steps = [_word(decision.record) for decision in decisions]
        if expected:
            assert steps == expected, f"{step}: {steps}, not {expected}"
        elif words[0] not in ("all", "deliver", "again", "tick", "log_time", "configure"):
            assert steps == ["expired"] * (len(steps) - 1) + ["posted"], f"{step}: {steps}"

    def _log_time(self, partition: int, after_ms: int) -> bytes:
        offset, time_ms = self.places[partition].commands, self.now_ms + after_ms
        return encode(
            coordination.LogTime(topic="commands", first=offset, last=offset, time_ms=time_ms)
        )

    def _configured(self, partition: int, changes: Words) -> bytes:
        before = self.places[partition].state.partition.settings
        assert before is not None
        given = {name: int(text) for name, _, text in (word.partition("=") for word in changes)}
        return encode(coordination.Configure(settings=msgspec.structs.replace(before, **given)))

    def _make(self, word: str) -> None:
        """An account as a story wants it, by the commands that would make it so."""
        name, _, parameters = word.partition("=")
        balance, *more = parameters.split(",")
        type, currency, options = "wallet", "NGN", ""
        for each in more:
            if each in ACCOUNT_TYPES:
                type = each
            elif each in money.EXPONENTS:
                currency = each
            elif ":" in each:
                options += " " + each.replace(":", "=")
        self._step(f"open {name} {type} {currency}{options}", [])
        wanted = amount(balance)
        if wanted and type in ("asset", "expense"):
            sides = ("debit", "credit") if wanted > 0 else ("credit", "debit")
            much = abs(wanted)
            self._step(f"post {sides[0]} {name} {much} {sides[1]} funding {much}", [])
        elif wanted:
            self._step(f"{'credit' if wanted > 0 else 'debit'} {name} {abs(wanted)}", [])
        if "frozen" in more:
            self._step(f"freeze {name}", [])
        if "closed" in more:
            self._step(f"close {name}", [])

    def _fact(self, word: str) -> None:
        name, _, expected = word.partition("=")
        value, *more = expected.split(",")
        if "/" in name:
            assert f"{self._hold_fact(*name.split('/'))}" == expected, word
            return
        if match := re.fullmatch(r"(funding|fees|transit)(\d?)", name):
            currency = more[0] if more else "NGN"
            actual = self.system(match.group(1), int(match.group(2) or 0), currency)
            assert actual == amount(value), f"{word}: {actual}"
            return
        account = self.account(name)
        facts = dict(each.split(":") for each in more if ":" in each)
        status = next((each for each in more if ":" not in each), "open")
        actual_facts = (account.balance, account.held, account.incoming, account.status)
        wanted = (amount(value), amount(facts.pop("held", "0")), amount(facts.pop("in", "0")))
        assert actual_facts == (*wanted, status), f"{word}: {actual_facts}"
        if "v" in facts:
            assert account.version == int(facts.pop("v")), f"{word}: {account.version}"
        assert facts == {}, f"unknown facts in {word}"

    def _hold_fact(self, account: str, key: str) -> str:
        hold = self.hold(account, key)
        return f"{hold.status}:{hold.captured}" if hold.captured else hold.status


def play(story: str, **settings: int) -> Stage:
    """A story that begins with `rules 1;` is of that rules version."""
    if match := re.match(r"\s*rules (\d+);", story):
        settings["rules_version"], story = int(match.group(1)), story[match.end() :]
    return Stage(**settings).play(story)


def _word(record: JournalRecord) -> str:
    if record.reason is not None and record.step in ("rejected", "refused"):
        assert (record.reason in NEVER_FROZEN) is (record.step == "refused")
        return str(record.reason)
    return f"declined:{record.reason}" if record.step == "declined" else record.step


# What must hold after every step


def _check_record(
    record: JournalRecord, before: dict[bytes, states.StateValue], state: MemoryState
) -> None:
    after = state.values()
    net = sum(e.amount if e.direction == "debit" else -e.amount for e in record.entries)
    assert net == 0, "debits and credits of each record are equal"
    for entry in record.entries:
        if not ids.is_system(entry.account):
            account = state_view.account(state, entry.account)
            earlier = before[state_keys.account(entry.account)]
            assert isinstance(earlier, states.AccountState)
            assert account is not None and abs(account.balance) <= MAX
            assert account.version == entry.version == earlier.version + 1
            assert abs(account.balance - earlier.balance) == entry.amount
    touched = {e.account for e in record.entries} | {r.account for r in record.reserved}
    for id in touched:
        account = state_view.account(state, id)
        if account is not None and account.min_balance is not None:
            assert account.available >= account.min_balance, f"{id} is below its limit"
    rejected_at_once = record.step == "rejected" and record.command_offset is None
    if record.step in _CHANGE_NOTHING or rejected_at_once:
        changed = {key for key in after.keys() | before.keys() if after.get(key) != before.get(key)}
        own = {state_keys.transaction(record.transaction_id)} if record.transaction_id else set()
        assert changed == (own if rejected_at_once else set()), "a no changes nothing"
    assert (record.reason is not None) or record.step not in ("rejected", "refused", "declined")


def _check_transactions(record: JournalRecord, decision: tuple[TransactionRecord, ...]) -> None:
    """One record for each entry of an ordinary account, in the journal's order and no other."""
    posted = [e for e in record.entries if not ids.is_system(e.account)]
    assert [(t.account_id, t.entry, t.amount, t.balance, t.version, t.held) for t in decision] == [
        (e.account, e.direction, e.amount, e.balance, e.version, e.held) for e in posted
    ]
    for each in decision:
        assert each.available == each.balance - each.held
        assert (each.partition, each.sequence) == (record.partition, record.sequence)
        assert each.transaction_id == record.transaction_id
