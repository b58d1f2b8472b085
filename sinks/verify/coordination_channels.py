"""The messages between partitions: what the sender's journal says it sent, what the receiver's
journal says it read, and what still lies in `coordination` between the two.

Messages between two partitions are numbered without gaps. A message that was sent and not read is
in flight only if it is in `coordination` beyond the receiver's position. Over all partitions,
transit holds what the commit messages in flight carry.
"""

import hashlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, get_args

import msgspec
from msgspec.structs import replace

from schemas import coordination, ids, ledger_parameters
from schemas.coordination import CoordinatedEntry, CoordinationMessage, NumberedMessage
from schemas.journal import JournalRecord
from schemas.ledger_parameters import LedgerParameters
from schemas.partitioning import partition_of
from schemas.reasons import Reason
from sinks.verify import topic_reader
from sinks.verify.expected_effects import Effects
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import Differences

_KINDS: Final[dict[type, str]] = {
    coordination.Prepare: "prepare",
    coordination.Prepared: "prepared",
    coordination.Refused: "refused",
    coordination.Commit: "commit",
    coordination.Abort: "abort",
}
# What a step sends; a duplicate or an ignored one sends nothing.
_SENT: Final = {
    "pending": "prepare",
    "prepared": "prepared",
    "declined": "refused",
    "posted": "commit",
    "rejected": "abort",
}
_NUMBERED: Final = get_args(coordination.NumberedMessage)
_NAMES: Final = tuple(_KINDS.values())
_CODES: Final = {name: code for code, name in enumerate(_NAMES)}
_REASONS: Final = frozenset(Reason)
_DIGEST_BYTES: Final = 8
_UNKNOWN: Final = bytes(_DIGEST_BYTES)

_encode: Final = msgspec.json.Encoder().encode
_decode_message: Final = msgspec.json.Decoder(CoordinationMessage).decode
_decode_record: Final = msgspec.json.Decoder(JournalRecord).decode

Way = tuple[int, int]


class _Message(NamedTuple):
    kind: str
    digest: bytes
    # Debits less credits that a commit makes the receiver post.
    net: int = 0
    currency: int = 0

    def differs(self, other: "_Message") -> bool:
        known = _UNKNOWN not in (self.digest, other.digest)
        return self.kind != other.kind or (known and self.digest != other.digest)


class _Side:
    """One side's account of the messages from one partition to another, by number from 1."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.digests = bytearray()
        self.nets = array("q")
        self.currencies = array("H")

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, number: int) -> _Message:
        at = number - 1
        digest = self.digests[at * _DIGEST_BYTES : number * _DIGEST_BYTES]
        return _Message(_NAMES[self.kinds[at]], bytes(digest), self.nets[at], self.currencies[at])

    def add(self, kind: str, digest: bytes, net: int, currency: int) -> None:
        self.kinds.append(_CODES[kind])
        self.digests += digest
        # What does not fit is wrong by itself, and reported with the books.
        self.nets.append(net if abs(net) < 2**63 else 0)
        self.currencies.append(currency)


class CoordinationChannels:
    def __init__(self, differences: Differences) -> None:
        self._differences = differences
        self._sent: dict[Way, _Side] = {}
        self._read: dict[Way, _Side] = {}
        self._currencies: list[str] = []
        # Sent and not read, as of the two ends; and found where it must be.
        self._in_flight: Counter[int] = Counter()

    def before_fold(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, effects: Effects | None
    ) -> None:
        """Called before the books have the record: what is pending and prepared is there still.
        `effects`: what it must change and send, where that can be told."""
        if record.sent or (effects is not None and effects.messages):
            self._send(books, offset, record, effects)
        message = record.message
        if isinstance(message, _NUMBERED) and record.step != "duplicate":
            self._receive(books, offset, record, message)

    def sent_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._sent, [(partition, other) for other in range(partitions)])

    def read_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._read, [(other, partition) for other in range(partitions)])

    def _lengths(self, sides: dict[Way, _Side], ways: list[Way]) -> tuple[int, ...]:
        return tuple(len(sides[way]) if way in sides else 0 for way in ways)

    def _send(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, effects: Effects | None
    ) -> None:
        kind = _SENT.get(record.step)
        if kind is None:
            self._note(books, offset, record, f"sends messages, though it is {record.step}")
            return
        expected = dict(effects.messages) if effects is not None else {}
        to = [sent.partition for sent in record.sent]
        if effects is not None and to != list(expected):
            what = f"sends to partitions {to}, but must send to {list(expected)}"
            self._note(books, offset, record, what)
        currency = ""
        entries: tuple[CoordinatedEntry, ...] = ()
        waited = books.open.get(record.transaction_id or "")
        if kind == "commit" and waited is not None:
            currency, entries = waited.pending.currency, waited.pending.entries
        for sent in record.sent:
            side = self._sent.setdefault((books.partition, sent.partition), _Side())
            if sent.number != len(side) + 1:
                self._note(
                    books,
                    offset,
                    record,
                    f"sends message {sent.number} to partition {sent.partition} after {len(side)}",
                )
            # Without a genesis nobody knows where an account belongs; that is noted elsewhere.
            net = _net_of(entries, sent.partition, books.partitions) if books.partitions else 0
            message = expected.get(sent.partition)
            digest = _UNKNOWN if message is None else _digest(replace(message, number=sent.number))
            side.add(kind, digest, net, self._code(currency))

    def _receive(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, message: NumberedMessage
    ) -> None:
        side = self._read.setdefault((message.source, books.partition), _Side())
        if message.number != len(side) + 1:
            self._note(
                books,
                offset,
                record,
                f"reads message {message.number} of partition {message.source} after {len(side)}",
            )
        net, currency = 0, ""
        if record.step == "committed":
            net = sum(
                entry.amount if entry.direction == "debit" else -entry.amount
                for entry in record.entries
                if not ids.is_system(entry.account)
            )
            prepared = books.prepared.get(record.transaction_id or "")
            if prepared is not None and isinstance(prepared[0].message, coordination.Prepare):
                currency = prepared[0].message.currency
        side.add(_KINDS[type(message)], _digest(message), net, self._code(currency))

    # At the end

    def compare(self) -> None:
        """What both sides have, message by message."""
        for way in sorted({*self._sent, *self._read}):
            sent, read = self._sides(way)
            both = min(len(sent), len(read))
            if (
                sent.kinds[:both] != read.kinds[:both]
                or sent.digests[: both * _DIGEST_BYTES] != read.digests[: both * _DIGEST_BYTES]
                or sent.nets[:both] != read.nets[:both]
                or sent.currencies[:both] != read.currencies[:both]
            ):
                self._note_each_difference(way, sent, read, both)

    def _note_each_difference(self, way: Way, sent: _Side, read: _Side, both: int) -> None:
        for number in range(1, both + 1):
            one, other = sent[number], read[number]
            if one.differs(other) or one[2:] != other[2:]:
                self._different(way, number, one, other, "read")

    def _different(
        self, way: Way, number: int, sent: _Message, found: _Message, where: str
    ) -> None:
        what = f"message {number} from partition {way[0]} to {way[1]} was sent as"
        if (sent.kind, *sent[2:]) != (found.kind, *found[2:]):
            text = f"{self._text(sent)} and {where} as {self._text(found)}"
        else:
            text = f"{self._text(sent)} and {where} with other contents"
        self._differences.note("coordination", f"{what} {text}", partition=way[1])

    def _text(self, message: _Message) -> str:
        if not message.net:
            return message.kind
        return f"{message.kind} of {message.net} {self._currencies[message.currency]}"

    def _sides(self, way: Way) -> tuple[_Side, _Side]:
        return self._sent.get(way, _Side()), self._read.get(way, _Side())

    def find(self, receiver: "UnreadMessages", journals: Callable[[int], "LaterJournal"]) -> None:
        """What one partition has still to read in `coordination`, and what it read of messages that
        were sent beyond the senders' ends. `journals`: what a partition has journaled since its
        end."""
        sources = {way[0] for way in (*self._sent, *self._read) if way[1] == receiver.partition}
        wanted: dict[tuple[int, int], _Message] = {}
        last_sent: dict[int, int] = {}
        for source in sorted(sources):
            way = source, receiver.partition
            sent, read = self._sides(way)
            last_sent[source] = len(sent)
            wanted |= {(source, n): sent[n] for n in range(len(read) + 1, len(sent) + 1)}
            self._sent_since(way, sent, read, journals)
        self._wait_for(receiver, wanted, journals)
        for at, message in wanted.items():
            self._unread(receiver, at, message)
        for offset, reason in receiver.stops.items():
            what = f"record at {offset} of the topic {reason}: the processor stops there"
            self._differences.note("coordination", what, partition=receiver.partition)
        # One that was read before is a duplicate: it changes nothing.
        others = [at for at in receiver.found if not 1 <= at[1] <= last_sent.get(at[0], 0)]
        for source, number in sorted(self._never_sent(receiver, others, journals)):
            what = f"message {number} of partition {source} is in the topic, but was never sent"
            self._differences.note("coordination", what, partition=receiver.partition)

    def find_decisions(
        self,
        receiver: "UnreadMessages",
        ahead: dict[int, coordination.LogTime],
        journals: Callable[[int], "LaterJournal"],
    ) -> None:
        """Operators' decisions that counted already, and have still to be read in their place, or
        were read since."""
        for offset, decision in ahead.items():
            found = receiver.decisions.get(offset)
            if found is None:
                since = journals(receiver.partition)
                since.read()
                found = since.decisions.get(offset)
            if found != decision:
                what = f"the decision on log times at {offset} of `coordination` is not there"
                self._differences.note("coordination", what, partition=receiver.partition)

    def _sent_since(
        self, way: Way, sent: _Side, read: _Side, journals: Callable[[int], "LaterJournal"]
    ) -> None:
        for number in range(len(sent) + 1, len(read) + 1):
            message = read[number]
            kind = journals(way[0]).sent.get((way[1], number))
            if kind is None:
                what = f"message {number} of partition {way[0]} was read, but was never sent"
                self._differences.note("coordination", what, partition=way[1])
            elif kind != message.kind:
                self._different(way, number, _Message(kind, _UNKNOWN), message, "read")
            else:
                self._in_flight[message.currency] -= message.net

    def _wait_for(
        self,
        receiver: "UnreadMessages",
        wanted: dict[tuple[int, int], _Message],
        journals: Callable[[int], "LaterJournal"],
    ) -> None:
        """A commit is seen in one topic a moment before it is in another, and what was read
        meanwhile is deleted."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        while True:
            receiver.read()
            wanted_keys = wanted.keys() - receiver.undecodable
            if wanted_keys <= receiver.found.keys():
                return
            since = journals(receiver.partition)
            since.read()
            receiver.found.update(since.read_of(wanted_keys - receiver.found.keys()))
            if wanted_keys <= receiver.found.keys() or time.monotonic() > deadline:
                return
            time.sleep(topic_reader.PAUSE_S)

    def _unread(self, receiver: "UnreadMessages", at: tuple[int, int], sent: _Message) -> None:
        source, number = at
        if at in receiver.undecodable:
            # It lies there; that it cannot be decoded is noted by itself.
            self._in_flight[sent.currency] += sent.net
            return
        found = receiver.found.get(at)
        if found is None:
            what = (
                f"message {number} of partition {source}, {self._text(sent)}, was sent, but is"
                " neither in the topic nor read"
            )
            self._differences.note("coordination", what, partition=receiver.partition)
            return
        if sent.differs(found):
            self._different((source, receiver.partition), number, sent, found, "is in the topic")
            return
        self._in_flight[sent.currency] += sent.net

    def _never_sent(
        self,
        receiver: "UnreadMessages",
        found: list[tuple[int, int]],
        journals: Callable[[int], "LaterJournal"],
    ) -> set[tuple[int, int]]:
        """Those that no journal has by now, either."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        missing = set(found)
        while True:
            waited = {source for source, _ in missing if 0 <= source < receiver.partitions}
            for source, number in list(missing):
                if source in waited and (receiver.partition, number) in journals(source).sent:
                    missing.discard((source, number))
            waited &= {source for source, _ in missing}
            if not waited or time.monotonic() > deadline:
                return missing
            time.sleep(topic_reader.PAUSE_S)
            for source in waited:
                journals(source).read()

    def under_way(self) -> Counter[str]:
        """By currency what transit must hold over all partitions, once all was found."""
        total = {self._currencies[code]: net for code, net in self._in_flight.items() if net}
        return Counter(total)

    def _code(self, currency: str) -> int:
        if currency not in self._currencies:
            self._currencies.append(currency)
        return self._currencies.index(currency)

    def _note(self, books: ReplayedBooks, offset: int, record: JournalRecord, what: str) -> None:
        self._differences.note(
            "coordination",
            what,
            partition=books.partition,
            offset=offset,
            sequence=record.sequence,
            transaction_id=record.transaction_id,
        )


class UnreadMessages:
    """What lies in one partition of `coordination` beyond its reader's position."""

    def __init__(
        self, of: topic_reader.TopicPartitionReader, next_offset: int, partitions: int
    ) -> None:
        self.partition = of.partition
        self.partitions = partitions
        self.found: dict[tuple[int, int], _Message] = {}
        self.decisions: dict[int, coordination.LogTime] = {}
        # By offset: why a processor of this version does not decide the record.
        self.stops: dict[int, str] = {}
        # By source and number: messages that are there and cannot be decoded.
        self.undecodable: set[tuple[int, int]] = set()
        self._of = of
        self._next = next_offset

    def read(self) -> None:
        start, end = self._of.range()
        for record in self._of.records(max(start, self._next), end):
            value = record.value or b""
            try:
                message = _decode_message(value)
            except (ValueError, RecursionError) as error:
                self._undecodable(record.offset, value, str(error))
                continue
            if isinstance(message, coordination.Refused) and message.reason not in _REASONS:
                reason = f"unknown reason {message.reason!r}"
                self._undecodable(record.offset, value, reason)
            elif isinstance(message, coordination.Configure) and message.genesis is None:
                unsupported = _unsupported(message.settings)
                if unsupported is not None:
                    self.stops[record.offset] = unsupported
            elif isinstance(message, _NUMBERED):
                self.found.setdefault((message.source, message.number), _message(message))
            elif isinstance(message, coordination.LogTime):
                self.decisions[record.offset] = message
        self._next = max(self._next, end)

    def _undecodable(self, offset: int, value: bytes, reason: str) -> None:
        """Another version's message has an effect that is unknown here, so the processor stops at
        it. It ignores bytes that are no message."""
        try:
            fields = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return
        if not isinstance(fields, dict):
            return
        if "message" in fields or {"source", "number"} <= fields.keys():
            self.stops[offset] = f"cannot be decoded: {reason}"
            source, number = fields.get("source"), fields.get("number")
            if isinstance(source, int) and isinstance(number, int):
                self.undecodable.add((source, number))


class LaterJournal:
    """What one partition has journaled since the end up to which it was folded."""

    def __init__(self, of: topic_reader.TopicPartitionReader, next_offset: int) -> None:
        # By receiving partition and number: the kind.
        self.sent: dict[tuple[int, int], str] = {}
        self.decisions: dict[int, coordination.LogTime] = {}
        self._read: dict[tuple[int, int], _Message] = {}
        self._of = of
        self._next = next_offset
        self.read()

    def read(self) -> None:
        _, end = self._of.range()
        for record in self._of.records(self._next, end):
            try:
                said = _decode_record(record.value or b"")
            except ValueError:
                continue
            for sent in said.sent:
                self.sent[sent.partition, sent.number] = _SENT.get(said.step, said.step)
            if isinstance(said.message, _NUMBERED) and said.step != "duplicate":
                self._read[said.message.source, said.message.number] = _message(said.message)
            elif (
                isinstance(said.message, coordination.LogTime)
                and said.source.topic == "coordination"
            ):
                self.decisions[said.source.offset] = said.message
        self._next = max(self._next, end)

    def read_of(self, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], _Message]:
        return {at: self._read[at] for at in wanted if at in self._read}


def _unsupported(parameters: LedgerParameters) -> str | None:
    """Why this program cannot decide by these parameters; None if it can."""
    if parameters.format_level > ledger_parameters.FORMAT_LEVEL:
        return (
            f"sets format level {parameters.format_level}, and this program supports"
            f" {ledger_parameters.FORMAT_LEVEL}"
        )
    if parameters.rules_version not in ledger_parameters.RULES_VERSIONS:
        return (
            f"sets rules version {parameters.rules_version}, and this program supports"
            f" {sorted(ledger_parameters.RULES_VERSIONS)}"
        )
    return None


def _message(message: NumberedMessage) -> _Message:
    return _Message(_KINDS[type(message)], _digest(message))


def _digest(message: NumberedMessage) -> bytes:
    if isinstance(message, coordination.Refused):
        # Which entry was refused is not in its sender's journal.
        message = replace(message, index=0)
    return hashlib.blake2b(_encode(message), digest_size=_DIGEST_BYTES).digest()


def _net_of(entries: tuple[CoordinatedEntry, ...], partition: int, partitions: int) -> int:
    return sum(
        entry.amount if entry.direction == "debit" else -entry.amount
        for entry in entries
        if not ids.is_system(entry.account) and partition_of(entry.account, partitions) == partition
    )
