"""`streamledger produce`: commands as lines of JSON, sent as any producer must send them.

Keeps the rule that the key is the account's id and the partition the one that follows from it.
What may happen is for the ledger to say: a line is sent if it names its account.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from plumbing.failures import Failure
from plumbing.kafka import auth_errors, clients
from plumbing.settings import KafkaSettings
from schemas import ids
from schemas.published_records import Result

TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
# Lines that were read and not sent yet.
AHEAD: Final = 1_000
# Commands that were sent and have no result yet; beyond it no more are sent until some have.
MOST_AWAITED: Final = 10_000

Position = tuple[int, int]

_decode_result = msgspec.json.Decoder(Result).decode


@dataclass(frozen=True, slots=True)
class SentCommand:
    """Kafka has the command. `transaction_id` identifies its outcome, unless the command is refused
    as invalid."""

    line: int
    account: str
    position: Position
    transaction_id: str | None


@dataclass(frozen=True, slots=True)
class NotSent:
    line: int
    why: str


@dataclass(slots=True)
class Tally:
    sent: int = 0
    not_sent: int = 0
    posted: int = 0
    rejected: int = 0
    pending: int = 0
    awaited: dict[Position, SentCommand] = field(default_factory=dict)


ProduceEvent = SentCommand | NotSent | Result


@contextmanager
def lines(file: Path | None) -> Iterator[Iterable[bytes]]:
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from None
    with opened:
        yield opened


def show(event: ProduceEvent, as_json: bool) -> None:
    """What was sent, or its result, on standard output; what was not sent on standard error."""
    if isinstance(event, NotSent):
        sys.stderr.write(f"streamledger: line {event.line}: {event.why}\n")
        return
    line = _as_json(event) if as_json else _as_line(event)
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()


def report(tally: Tally, strict: bool) -> int:
    """The exit code: 1 if a line was not sent, a result did not come in time or, with --strict, a
    command was rejected."""
    for sent in tally.awaited.values():
        place = f"{sent.position[0]}:{sent.position[1]}"
        sys.stderr.write(
            f"streamledger: line {sent.line}: sent as {place}; its result has not come yet\n"
        )
    if tally.not_sent:
        sys.stderr.write(
            f"streamledger: {tally.sent:,} lines were sent, {tally.not_sent:,} were not; after they"
            " are mended all lines may be sent again: each that has an id happens once\n"
        )
    wrong = tally.not_sent or tally.awaited or (strict and tally.rejected)
    return 1 if wrong else 0


def _as_line(event: SentCommand | Result) -> bytes:
    if isinstance(event, SentCommand):
        partition, offset = event.position
        words = [f"{partition}:{offset}", event.account, event.transaction_id or "-"]
    else:
        outcome = f"{event.outcome} (replay)" if event.replay else event.outcome
        place = f"{event.partition}:{event.offset}"
        words = [place, event.id or "-", outcome, event.transaction_id or "-"]
        if event.reason is not None:
            words.append(f"{event.reason}: {event.detail}" if event.detail else event.reason)
    return "  ".join(words).encode("utf-8", "backslashreplace")


def _as_json(event: SentCommand | Result) -> bytes:
    if isinstance(event, Result):
        return msgspec.json.encode(event)
    partition, offset = event.position
    return msgspec.json.encode(
        {
            "partition": partition,
            "offset": offset,
            "account": event.account,
            "transaction_id": event.transaction_id,
        }
    )


class Commands:
    """Sends lines, and tells what became of each as soon as that is known."""

    def __init__(
        self, settings: KafkaSettings, client_id: str, *, wait: bool, timeout_s: float
    ) -> None:
        self.tally = Tally()
        self._topic = settings.topics.commands
        self._config = clients.client_config(settings, client_id)
        self._producer = clients.command_producer(settings, client_id)
        self._results = _Results(settings, client_id) if wait else None
        self._timeout_s = timeout_s
        self._events: list[ProduceEvent] = []
        self._in_flight = 0
        self._heard = time.monotonic()

    def send(self, lines: Iterable[bytes]) -> Iterator[ProduceEvent]:
        """Until all lines are sent and, where it waits, all results are there or none came in
        time."""
        try:
            source = _Ahead(lines)
            for number, line in source:
                if line is not None:
                    self._heard = time.monotonic()
                    self._send(number, line)
                yield from self._news(0 if source.more() else POLL_S)
                while len(self.tally.awaited) >= MOST_AWAITED and not self._overdue():
                    yield from self._news(POLL_S)
            self._heard = time.monotonic()
            while (self._in_flight or self.tally.awaited) and not self._overdue():
                yield from self._news(POLL_S)
            if self._in_flight:
                raise Failure(
                    f"Kafka did not confirm {self._in_flight} commands in time, and may have them:"
                    " send them again as they were, and each still happens once"
                )
        finally:
            if self._results is not None:
                self._results.close()

    def _send(self, number: int, line: bytes) -> None:
        account, transaction = _named(line)
        if account is None:
            self.tally.not_sent += 1
            self._events.append(NotSent(number, "not sent: no JSON object with an account"))
            return

        def delivered(error: KafkaError | None, message: Message) -> None:
            self._in_flight -= 1
            if error is not None:
                self.tally.not_sent += 1
                refusal = auth_errors.refusal(self._config, error)
                why = refusal or f"not confirmed by Kafka, which may have it: {error.str()}"
                self._events.append(NotSent(number, why))
                return
            position = (message.partition() or 0, message.offset() or 0)
            self.tally.sent += 1
            sent = SentCommand(number, account, position, transaction)
            if self._results is not None:
                self.tally.awaited[position] = sent
            else:
                self._events.append(sent)

        while True:
            try:
                self._producer.produce(self._topic, line, account.encode(), on_delivery=delivered)
            except BufferError:
                self._producer.poll(POLL_S)
            except KafkaException as error:
                why: KafkaError = error.args[0]
                text = f"not sent: {why.str()}"
                if why.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    text = f"not sent: {len(line):,} bytes are more than a record may have"
                self.tally.not_sent += 1
                self._events.append(NotSent(number, text))
                return
            else:
                break
        self._in_flight += 1

    def _news(self, timeout_s: float) -> Iterator[ProduceEvent]:
        self._producer.poll(0 if self._results is not None else timeout_s)
        if self._results is not None:
            found = self._results.of(self.tally.awaited, self._in_flight > 0, timeout_s)
            for result in found:
                self._heard = time.monotonic()
                self._count(result)
            self._events += found
        events, self._events = self._events, []
        yield from events

    def _count(self, result: Result) -> None:
        del self.tally.awaited[result.partition, result.offset]
        if result.outcome == "posted":
            self.tally.posted += 1
        elif result.outcome == "rejected":
            self.tally.rejected += 1
        else:
            self.tally.pending += 1

    def _overdue(self) -> bool:
        return time.monotonic() - self._heard > self._timeout_s


class _Results:
    """The results that are written from now on."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        topic = settings.topics.results
        self._consumer = Consumer(
            {
                **clients.client_config(settings, client_id),
                # Required by the client; nothing is ever committed or subscribed under it.
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            known = self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
            if known.error is not None:
                raise Failure(f"no results to wait for: {known.error.str()}")
            ends = []
            for partition in known.partitions:
                watched = TopicPartition(topic, partition)
                ends.append(
                    (partition, self._consumer.get_watermark_offsets(watched, TIMEOUT_S)[1])
                )
        except KafkaException as error:
            raise Failure(f"Kafka cannot be reached: {error.args[0].str()}") from None
        self._consumer.assign([TopicPartition(topic, number, end) for number, end in ends])
        # Of commands that Kafka has not confirmed to us yet.
        self._early: dict[Position, Result] = {}

    def of(
        self, awaited: dict[Position, SentCommand], unconfirmed: bool, timeout_s: float
    ) -> list[Result]:
        for message in self._consumer.consume(1_000, timeout_s):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            result = _decode_result(message.value() or b"")
            self._early[result.partition, result.offset] = result
        found = [self._early.pop(position) for position in list(self._early) if position in awaited]
        if not unconfirmed:
            self._early.clear()
        return found

    def close(self) -> None:
        self._consumer.close()


class _Ahead:
    """Lines with their numbers, read in a thread: results are printed while none comes."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._queue: queue.Queue[tuple[int, bytes] | OSError | None] = queue.Queue(AHEAD)
        threading.Thread(target=self._read, args=(lines,), name="lines", daemon=True).start()

    def more(self) -> bool:
        return not self._queue.empty()

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        while True:
            try:
                got = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                yield 0, None
                continue
            if got is None:
                return
            if isinstance(got, OSError):
                raise Failure(f"the lines cannot be read any further: {got.strerror or got}")
            yield got

    def _read(self, lines: Iterable[bytes]) -> None:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self._queue.put((number, line.strip()))
        except OSError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)


def _named(line: bytes) -> tuple[str | None, str | None]:
    """The account and the transaction that a line names. The ledger reads it more strictly."""
    try:
        command = json.loads(line)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(command, dict):
        return None, None
    account = command.get("account")
    key = command.get("idempotency_key") or command.get("id")
    if not isinstance(account, str) or not account:
        return None, None
    try:
        account.encode()
        usable = key.encode() if isinstance(key, str) else b""
    except UnicodeEncodeError:
        return None, None
    if not usable:
        return account, None
    only = command.get("wallets_only") is True
    return account, ids.transaction_id(account, usable.decode(), wallets_only=only)
