"""Compares the messages between partitions: those that the sender's journal sent, those that the
receiver's journal read, and those in `coordination` that are still unread.

Messages between two partitions are numbered without gaps. A sent message that is unread must be in
`coordination` beyond the receiver's position. Over all partitions, transit equals the net amount of
the commit messages in flight. It must not know how the processor sends or reads.
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
# Duplicate and ignored messages send nothing.
SENT_KIND_BY_STEP: Final = {
    "pending": "prepare",
    "prepared": "prepared",
    "declined": "refused",
    "posted": "commit",
    "rejected": "abort",
}
_NUMBERED: Final = get_args(coordination.NumberedMessage)
_KIND_NAMES: Final = tuple(_KINDS.values())
_KIND_CODES: Final = {name: code for code, name in enumerate(_KIND_NAMES)}
_REASONS: Final = frozenset(Reason)
_DIGEST_BYTES: Final = 8
NO_DIGEST: Final = bytes(_DIGEST_BYTES)

_encode: Final = msgspec.json.Encoder().encode
_decode_message: Final = msgspec.json.Decoder(CoordinationMessage).decode
_decode_record: Final = msgspec.json.Decoder(JournalRecord).decode

Channel = tuple[int, int]


class _MessageDigest(NamedTuple):
    kind: str
    digest: bytes
    # Of a commit: debits less credits that the receiver posts.
    net: int = 0
    currency: int = 0

    def differs(self, other: "_MessageDigest") -> bool:
        comparable = NO_DIGEST not in (self.digest, other.digest)
        return self.kind != other.kind or (comparable and self.digest != other.digest)


class _MessageLog:
    """The messages from one partition to another as one of their journals has them, numbered from
    1."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.digests = bytearray()
        self.nets = array("q")
        self.currencies = array("H")

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, number: int) -> _MessageDigest:
        position = number - 1
        digest = self.digests[position * _DIGEST_BYTES : number * _DIGEST_BYTES]
        return _MessageDigest(
            _KIND_NAMES[self.kinds[position]],
            bytes(digest),
            self.nets[position],
            self.currencies[position],
        )

    def add(self, kind: str, digest: bytes, net: int, currency: int) -> None:
        self.kinds.append(_KIND_CODES[kind])
        self.digests += digest
        # The books report an amount that does not fit.
        self.nets.append(net if abs(net) < 2**63 else 0)
        self.currencies.append(currency)


class CoordinationChannels:
    def __init__(self, differences: Differences) -> None:
        self._differences = differences
        self._sent: dict[Channel, _MessageLog] = {}
        self._read: dict[Channel, _MessageLog] = {}
        self._currencies: list[str] = []
        # By currency code: the net amount of messages in flight that are in the topic.
        self._in_flight: Counter[int] = Counter()

    def before_fold(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, effects: Effects | None
    ) -> None:
        """Call it before the books fold the record, while they still have what is pending and
        prepared. `effects`: what the record must change and send, if that can be derived."""
        if record.sent or (effects is not None and effects.messages):
            self._send(books, offset, record, effects)
        message = record.message
        if isinstance(message, _NUMBERED) and record.step != "duplicate":
            self._receive(books, offset, record, message)

    def sent_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._sent, [(partition, receiver) for receiver in range(partitions)])

    def read_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._read, [(sender, partition) for sender in range(partitions)])

    def _lengths(
        self, message_logs: dict[Channel, _MessageLog], channels: list[Channel]
    ) -> tuple[int, ...]:
        return tuple(
            len(message_logs[channel]) if channel in message_logs else 0 for channel in channels
        )

    def _send(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, effects: Effects | None
    ) -> None:
        kind = SENT_KIND_BY_STEP.get(record.step)
        if kind is None:
            self._note(books, offset, record, f"is {record.step}, but sends messages")
            return
        expected = dict(effects.messages) if effects is not None else {}
        receivers = [sent.partition for sent in record.sent]
        if effects is not None and receivers != list(expected):
            what = f"sends to partitions {receivers}, but must send to {list(expected)}"
            self._note(books, offset, record, what)
        currency = ""
        entries: tuple[CoordinatedEntry, ...] = ()
        open_transaction = books.open.get(record.transaction_id or "")
        if kind == "commit" and open_transaction is not None:
            currency, entries = open_transaction.pending.currency, open_transaction.pending.entries
        for sent in record.sent:
            message_log = self._sent.setdefault((books.partition, sent.partition), _MessageLog())
            if sent.number != len(message_log) + 1:
                self._note(
                    books,
                    offset,
                    record,
                    f"sends message {sent.number} to partition {sent.partition}, expected"
                    f" {len(message_log) + 1}",
                )
            # Without a genesis the partition of an account is unknown; the books note that.
            net = _net_of(entries, sent.partition, books.partitions) if books.partitions else 0
            message = expected.get(sent.partition)
            digest = NO_DIGEST if message is None else _digest(replace(message, number=sent.number))
            message_log.add(kind, digest, net, self._code(currency))

    def _receive(
        self, books: ReplayedBooks, offset: int, record: JournalRecord, message: NumberedMessage
    ) -> None:
        message_log = self._read.setdefault((message.source, books.partition), _MessageLog())
        if message.number != len(message_log) + 1:
            self._note(
                books,
                offset,
                record,
                f"reads message {message.number} of partition {message.source}, expected"
                f" {len(message_log) + 1}",
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
        message_log.add(_KINDS[type(message)], _digest(message), net, self._code(currency))

    # At the end

    def compare(self) -> None:
        """Compares the messages that both journals have."""
        for channel in sorted({*self._sent, *self._read}):
            sent, read = self._message_logs(channel)
            common = min(len(sent), len(read))
            if (
                sent.kinds[:common] != read.kinds[:common]
                or sent.digests[: common * _DIGEST_BYTES] != read.digests[: common * _DIGEST_BYTES]
                or sent.nets[:common] != read.nets[:common]
                or sent.currencies[:common] != read.currencies[:common]
            ):
                self._note_each_difference(channel, sent, read, common)

    def _note_each_difference(
        self, channel: Channel, sent: _MessageLog, read: _MessageLog, common: int
    ) -> None:
        for number in range(1, common + 1):
            sent_message, read_message = sent[number], read[number]
            if sent_message.differs(read_message) or sent_message[2:] != read_message[2:]:
                self._note_difference(channel, number, sent_message, read_message, "read")

    def _note_difference(
        self,
        channel: Channel,
        number: int,
        sent: _MessageDigest,
        present: _MessageDigest,
        place: str,
    ) -> None:
        what = f"message {number} from partition {channel[0]} to {channel[1]} was sent as"
        if (sent.kind, *sent[2:]) != (present.kind, *present[2:]):
            text = f"{self._text(sent)} and {place} as {self._text(present)}"
        else:
            text = f"{self._text(sent)} and {place} with different contents"
        self._differences.note("coordination", f"{what} {text}", partition=channel[1])

    def _text(self, message: _MessageDigest) -> str:
        if not message.net:
            return message.kind
        return f"{message.kind} of {message.net} {self._currencies[message.currency]}"

    def _message_logs(self, channel: Channel) -> tuple[_MessageLog, _MessageLog]:
        return self._sent.get(channel, _MessageLog()), self._read.get(channel, _MessageLog())

    def compare_unread(
        self, receiver: "UnreadMessages", later_journal: Callable[[int], "LaterJournal"]
    ) -> None:
        """Compares one partition's unread messages, and the messages that it read though they were
        sent after the end of the sender's journal. `later_journal`: what a partition has journaled
        after its end."""
        sources = {
            channel[0] for channel in (*self._sent, *self._read) if channel[1] == receiver.partition
        }
        in_flight: dict[tuple[int, int], _MessageDigest] = {}
        last_sent: dict[int, int] = {}
        for source in sorted(sources):
            channel = source, receiver.partition
            sent, read = self._message_logs(channel)
            last_sent[source] = len(sent)
            in_flight |= {(source, n): sent[n] for n in range(len(read) + 1, len(sent) + 1)}
            self._compare_messages_sent_later(channel, sent, read, later_journal)
        self._read_until_complete(receiver, in_flight, later_journal)
        for position, message in in_flight.items():
            self._compare_message_in_flight(receiver, position, message)
        for offset, reason in receiver.stops.items():
            what = f"record at {offset} of the topic {reason}: the processor stops there"
            self._differences.note("coordination", what, partition=receiver.partition)
        # A repeated message that was read before is a duplicate and changes nothing.
        others = [
            position
            for position in receiver.present
            if not 1 <= position[1] <= last_sent.get(position[0], 0)
        ]
        for source, number in sorted(self._await_senders(receiver, others, later_journal)):
            what = f"message {number} of partition {source} is in the topic, but was never sent"
            self._differences.note("coordination", what, partition=receiver.partition)

    def compare_log_time_decisions(
        self,
        receiver: "UnreadMessages",
        decided_ahead: dict[int, coordination.LogTime],
        later_journal: Callable[[int], "LaterJournal"],
    ) -> None:
        """Compares log-time decisions that took effect before the processor read them."""
        for offset, decision in decided_ahead.items():
            present = receiver.decisions.get(offset)
            if present is None:
                later = later_journal(receiver.partition)
                later.read()
                present = later.decisions.get(offset)
            if present != decision:
                what = f"no log-time decision at offset {offset} of `coordination`"
                self._differences.note("coordination", what, partition=receiver.partition)

    def _compare_messages_sent_later(
        self,
        channel: Channel,
        sent: _MessageLog,
        read: _MessageLog,
        later_journal: Callable[[int], "LaterJournal"],
    ) -> None:
        for number in range(len(sent) + 1, len(read) + 1):
            message = read[number]
            kind = later_journal(channel[0]).sent.get((channel[1], number))
            if kind is None:
                what = f"message {number} of partition {channel[0]} was read, but was never sent"
                self._differences.note("coordination", what, partition=channel[1])
            elif kind != message.kind:
                self._note_difference(
                    channel, number, _MessageDigest(kind, NO_DIGEST), message, "read"
                )
            else:
                self._in_flight[message.currency] -= message.net

    def _read_until_complete(
        self,
        receiver: "UnreadMessages",
        in_flight: dict[tuple[int, int], _MessageDigest],
        later_journal: Callable[[int], "LaterJournal"],
    ) -> None:
        """Waits for messages in flight. A transaction becomes visible in one topic before another,
        and the receiver deletes a message that it has read."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        while True:
            receiver.read()
            decodable = in_flight.keys() - receiver.undecodable
            if decodable <= receiver.present.keys():
                return
            later = later_journal(receiver.partition)
            later.read()
            receiver.present.update(later.messages_read(decodable - receiver.present.keys()))
            if decodable <= receiver.present.keys() or time.monotonic() > deadline:
                return
            time.sleep(topic_reader.PAUSE_S)

    def _compare_message_in_flight(
        self, receiver: "UnreadMessages", position: tuple[int, int], sent: _MessageDigest
    ) -> None:
        source, number = position
        if position in receiver.undecodable:
            # The message is in the topic. `receiver.stops` has the difference.
            self._in_flight[sent.currency] += sent.net
            return
        present = receiver.present.get(position)
        if present is None:
            what = (
                f"message {number} of partition {source}, {self._text(sent)}, was sent, but is"
                " neither in the topic nor in the receiver's journal"
            )
            self._differences.note("coordination", what, partition=receiver.partition)
            return
        if sent.differs(present):
            self._note_difference(
                (source, receiver.partition), number, sent, present, "is in the topic"
            )
            return
        self._in_flight[sent.currency] += sent.net

    def _await_senders(
        self,
        receiver: "UnreadMessages",
        present: list[tuple[int, int]],
        later_journal: Callable[[int], "LaterJournal"],
    ) -> set[tuple[int, int]]:
        """The messages that no sender has journaled by now."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        missing = set(present)
        while True:
            senders = {source for source, _ in missing if 0 <= source < receiver.partitions}
            for source, number in list(missing):
                if source in senders and (receiver.partition, number) in later_journal(source).sent:
                    missing.discard((source, number))
            senders &= {source for source, _ in missing}
            if not senders or time.monotonic() > deadline:
                return missing
            time.sleep(topic_reader.PAUSE_S)
            for source in senders:
                later_journal(source).read()

    def net_in_flight(self) -> Counter[str]:
        """By currency: what transit must be over all partitions. Valid after `compare_unread`."""
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
    """The messages of one partition of `coordination` beyond the processor's position."""

    def __init__(
        self, reader: topic_reader.TopicPartitionReader, next_offset: int, partitions: int
    ) -> None:
        self.partition = reader.partition
        self.partitions = partitions
        self.present: dict[tuple[int, int], _MessageDigest] = {}
        self.decisions: dict[int, coordination.LogTime] = {}
        # By offset: why a processor of this version does not decide the record.
        self.stops: dict[int, str] = {}
        # By source and number: messages that are there and cannot be decoded.
        self.undecodable: set[tuple[int, int]] = set()
        self._reader = reader
        self._next = next_offset

    def read(self) -> None:
        start, end = self._reader.range()
        for record in self._reader.records(max(start, self._next), end):
            value = record.value or b""
            try:
                message = _decode_message(value)
            except (ValueError, RecursionError) as error:
                self._add_undecodable(record.offset, value, str(error))
                continue
            if isinstance(message, coordination.Refused) and message.reason not in _REASONS:
                reason = f"unknown reason {message.reason!r}"
                self._add_undecodable(record.offset, value, reason)
            elif isinstance(message, coordination.Configure) and message.genesis is None:
                unsupported = _unsupported(message.settings)
                if unsupported is not None:
                    self.stops[record.offset] = unsupported
            elif isinstance(message, _NUMBERED):
                self.present.setdefault((message.source, message.number), _message(message))
            elif isinstance(message, coordination.LogTime):
                self.decisions[record.offset] = message
        self._next = max(self._next, end)

    def _add_undecodable(self, offset: int, value: bytes, reason: str) -> None:
        """The effect of another version's message is unknown, so the processor stops at it. It
        ignores bytes that are not a message."""
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
    """The records that one partition journaled after the end of the fold."""

    def __init__(self, reader: topic_reader.TopicPartitionReader, next_offset: int) -> None:
        # By receiving partition and number: the kind.
        self.sent: dict[tuple[int, int], str] = {}
        self.decisions: dict[int, coordination.LogTime] = {}
        self._read: dict[tuple[int, int], _MessageDigest] = {}
        self._reader = reader
        self._next = next_offset
        self.read()

    def read(self) -> None:
        _, end = self._reader.range()
        for topic_record in self._reader.records(self._next, end):
            try:
                record = _decode_record(topic_record.value or b"")
            except ValueError:
                continue
            for sent in record.sent:
                self.sent[sent.partition, sent.number] = SENT_KIND_BY_STEP.get(
                    record.step, record.step
                )
            if isinstance(record.message, _NUMBERED) and record.step != "duplicate":
                self._read[record.message.source, record.message.number] = _message(record.message)
            elif (
                isinstance(record.message, coordination.LogTime)
                and record.source.topic == "coordination"
            ):
                self.decisions[record.source.offset] = record.message
        self._next = max(self._next, end)

    def messages_read(
        self, in_flight: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], _MessageDigest]:
        return {position: self._read[position] for position in in_flight if position in self._read}


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


def _message(message: NumberedMessage) -> _MessageDigest:
    return _MessageDigest(_KINDS[type(message)], _digest(message))


def _digest(message: NumberedMessage) -> bytes:
    if isinstance(message, coordination.Refused):
        # The sender's journal does not hold the index of the refused entry.
        message = replace(message, index=0)
    return hashlib.blake2b(_encode(message), digest_size=_DIGEST_BYTES).digest()


def _net_of(entries: tuple[CoordinatedEntry, ...], partition: int, partitions: int) -> int:
    return sum(
        entry.amount if entry.direction == "debit" else -entry.amount
        for entry in entries
        if not ids.is_system(entry.account) and partition_of(entry.account, partitions) == partition
    )
