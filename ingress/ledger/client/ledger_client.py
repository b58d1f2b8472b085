"""The way to the ledger and back: commands into Kafka, their results out of it.

All of it happens on the event loop, with no thread of ours: at each tick what librdkafka has done
meanwhile is taken over in one go, so that a delivery or a result costs a few microseconds. Keeps
the rule that a result is an answer only if label, transaction id and position are those of the
submission: whoever may write to `commands` may use any label. It knows no HTTP and no Postgres.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.settings import KafkaSettings
from plumbing.worker.crash_points import CrashPoints
from schemas import commands, field_types
from schemas.commands import Command
from schemas.partitioning import partition_of
from schemas.published_records import Result

Position = tuple[int, int]

# While somebody waits, and while nobody does.
TICK_S: Final = 0.001
IDLE_TICK_S: Final = 0.05
# Commands are handed over together: the more wait for results, the longer they are gathered, since
# the number of batches is what costs the broker and all after it. With few there is no delay.
LINGER_S_PER_COMMAND: Final = 0.0002
MAX_LINGER_S: Final = 0.01
LINGER_ABOVE_COMMANDS: Final = 5
MAX_QUEUED_COMMANDS: Final = 50_000
MAX_RESULTS_PER_TICK: Final = 500
START_TIMEOUT_S: Final = 20.0
FLUSH_TIMEOUT_S: Final = 5.0
WARNING_INTERVAL_S: Final = 5.0

_decode: Final[Callable[[bytes], Result]] = msgspec.json.Decoder(Result).decode
_encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode

log = structlog.stdlib.get_logger(__name__)


class QueueFull(Exception):
    """The producer's queue takes no more: the command was not handed over."""


class CommandTooLarge(Exception):
    """The ledger would refuse it for its size: it was not handed over."""


class PendingCommand:
    """One command on its way. `position` is None until Kafka has it; `failed` says why that is not
    certain, `unplaced` that Kafka has it and did not say where, and `refused` that the producer did
    not take it; `result` is its outcome."""

    __slots__ = (
        "_any",
        "_unconfirmed",
        "_waiter",
        "failed",
        "label",
        "position",
        "refused",
        "result",
        "transaction_id",
        "unplaced",
    )

    def __init__(self, label: str, transaction_id: str) -> None:
        self.label = label
        self.transaction_id = transaction_id
        self.position: Position | None = None
        self.failed: str | None = None
        self.unplaced = False
        self.refused = False
        self.result: Result | None = None
        self._unconfirmed: Result | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._any = False

    async def decided(self, wait_s: float) -> Result | None:
        """None: not within the time, or it is not certain that Kafka has it."""
        if self.result is None and self.failed is None and wait_s > 0:
            await self._wait(wait_s, either=False)
        return self.result

    async def placed(self, wait_s: float) -> Position | None:
        """None: not certain within the time."""
        uncertain = self.failed is not None or self.unplaced
        if self.position is None and self.result is None and not uncertain:
            await self._wait(wait_s, either=True)
        if self.position is None and self.result is not None:
            self.position = (self.result.partition, self.result.offset)
        return self.position

    async def _wait(self, wait_s: float, *, either: bool) -> None:
        loop = asyncio.get_running_loop()
        self._any = either
        self._waiter = loop.create_future()
        timer = loop.call_later(wait_s, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed = error.str()
        else:
            self.position = _delivered_position(message)
            self.unplaced = self.position is None
        early, self._unconfirmed = self._unconfirmed, None
        if early is not None:
            self.answered(early)
        if self._waiter is not None and (self._any or error is not None):
            _wake(self._waiter)

    def not_taken(self, why: str) -> None:
        self.failed, self.refused = why, True
        if self._waiter is not None:
            _wake(self._waiter)

    def answered(self, result: Result) -> None:
        """Takes the result that carries our label if it is this command's. One that names no
        transaction is known by its position alone, and waits for ours."""
        place = (result.partition, result.offset)
        known = result.transaction_id == self.transaction_id
        refused = result.transaction_id is None
        if self.position is None and refused and self.failed is None and not self.unplaced:
            self._unconfirmed = result
            return
        here = known if self.position is None else place == self.position
        if not here or not (known or refused):
            log.warning(
                "a result with our label is of another command",
                transaction_id=self.transaction_id,
                partition=result.partition,
                offset=result.offset,
            )
            return
        self.result = result
        if self._waiter is not None:
            _wake(self._waiter)


def _delivered_position(message: Message) -> Position | None:
    """None: unknown, as after an append that was repeated."""
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None or partition < 0 or offset < 0:
        return None
    return partition, offset


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class ResultWatch:
    """Told when a result comes for a transaction id or a position."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self.event.wait()
        except TimeoutError:
            return
        self.event.clear()


class LedgerClient:
    def __init__(self, settings: KafkaSettings, client_id: str, crash: CrashPoints) -> None:
        self._crash = crash
        self._settings = settings
        self._client_id = client_id
        self._topic = settings.topics.commands
        self._partitions = settings.partitions
        self._prefix = secrets.token_hex(6)
        self._number = 0
        self._undelivered = 0
        self._gathered: list[tuple[str, bytes, PendingCommand]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._awaited: dict[str, PendingCommand] = {}
        self._watches: dict[str | Position, list[ResultWatch]] = {}
        self._producer: Producer | None = None
        self._results: Consumer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        self._complained_at = 0.0
        self._ended: asyncio.Future[None] | None = None

    @property
    def ended(self) -> asyncio.Future[None]:
        """Ends by an error that is not expected: nothing more would be sent, or told."""
        assert self._ended is not None, "started"
        return self._ended

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    async def start(self) -> None:
        """Results that are written from now on are told."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._producer = clients.command_producer(self._settings, self._client_id)
        self._results = await asyncio.to_thread(_results_consumer, self._settings, self._client_id)
        self._tick()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathering is not None:
            self._gathering.cancel()
            self._hand_over()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
        if self._results is not None:
            await asyncio.to_thread(self._results.close)
            self._results = None

    def submit(self, command: Command) -> PendingCommand:
        """To be handed to the producer with those that come at the same time. Whoever submits
        forgets it at the end. Raises Full or TooLarge, and then it is not sent."""
        assert self._producer is not None, "started"
        self._number += 1
        label = f"{self._prefix}-{self._number:x}"
        account = command.account
        value = _encode(msgspec.structs.replace(command, id=label))
        if len(value) > field_types.MAX_COMMAND_BYTES:
            raise CommandTooLarge
        made = PendingCommand(label, commands.transaction_id(command))
        if len(self._producer) + len(self._gathered) >= MAX_QUEUED_COMMANDS:
            raise QueueFull
        self._gathered.append((account, value, made))
        self._awaited[label] = made
        if self._gathering is None:
            self._gather()
        if self._resting:
            self._schedule(TICK_S)
        return made

    def _gather(self) -> None:
        assert self._loop is not None, "started"
        waiting = len(self._awaited)
        if waiting <= LINGER_ABOVE_COMMANDS:
            self._hand_over()
            return
        pause_s = min(MAX_LINGER_S, waiting * LINGER_S_PER_COMMAND)
        self._gathering = self._loop.call_later(pause_s, self._hand_over)

    def _hand_over(self) -> None:
        assert self._producer is not None, "started"
        self._gathering = None
        gathered, self._gathered = self._gathered, []
        for account, value, made in gathered:
            partition = partition_of(account, self._partitions)
            try:
                self._producer.produce(
                    self._topic,
                    value,
                    account.encode(),
                    partition,
                    on_delivery=self._delivery(made),
                )
            except BufferError as error:
                made.not_taken(str(error))
            except KafkaException as error:
                why = error.args[0].str()
                made.not_taken(why)
                self._end(Failure(f"the producer of commands takes no more: {why}"))
            else:
                self._undelivered += 1

    def forget(self, submission: PendingCommand) -> None:
        self._awaited.pop(submission.label, None)

    @contextmanager
    def watching(self, *keys: str | Position) -> Iterator[ResultWatch]:
        watch = ResultWatch()
        for key in keys:
            self._watches.setdefault(key, []).append(watch)
        if self._resting:
            self._schedule(TICK_S)
        try:
            yield watch
        finally:
            for key in keys:
                left = self._watches[key]
                left.remove(watch)
                if not left:
                    del self._watches[key]

    def _delivery(self, made: PendingCommand) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            self._undelivered -= 1
            self._crash.reach("submit.3-appended")
            made.delivered(error, message)

        return delivered

    def _schedule(self, pause_s: float) -> None:
        assert self._loop is not None, "started"
        if self._timer is not None:
            self._timer.cancel()
        self._resting = pause_s > TICK_S
        self._timer = self._loop.call_later(pause_s, self._tick)

    def _tick(self) -> None:
        assert self._producer is not None and self._results is not None, "started"
        try:
            if self._undelivered:
                self._producer.poll(0)
            for message in self._results.consume(MAX_RESULTS_PER_TICK, 0):
                self._take(message)
        except KafkaException as error:
            self._complain(error.args[0])
        except Exception as error:
            self._end(error)
        busy = self._undelivered or self._awaited or self._watches
        self._schedule(TICK_S if busy else IDLE_TICK_S)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._complain(error)
            return
        result = _decode(message.value() or b"")
        submission = self._awaited.get(result.id or "")
        if submission is not None:
            submission.answered(result)
        if self._watches:
            for key in (result.transaction_id, (result.partition, result.offset)):
                for watch in self._watches.get(key, ()) if key is not None else ():
                    watch.event.set()

    def _complain(self, error: KafkaError) -> None:
        """The client goes on by itself; meanwhile outcomes are read in Postgres."""
        now = time.monotonic()
        if now - self._complained_at > WARNING_INTERVAL_S:
            self._complained_at = now
            log.warning("results do not come", error=error.str())


def _results_consumer(settings: KafkaSettings, client_id: str) -> Consumer:
    """All of `results`, from its end on."""
    topic = settings.topics.results
    consumer = Consumer(
        {
            **clients.service(settings, client_id, log),
            # Required by the client; nothing is ever committed or subscribed under it.
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            # What was missed meanwhile is read in Postgres.
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 100,
        }
    )
    try:
        known = consumer.list_topics(topic, timeout=START_TIMEOUT_S).topics[topic]
        if known.error is not None:
            raise Failure(f"no results to wait for: {known.error.str()}")
        ends = []
        for partition in known.partitions:
            asked = TopicPartition(topic, partition)
            asked.offset = consumer.get_watermark_offsets(asked, timeout=START_TIMEOUT_S)[1]
            ends.append(asked)
    except KafkaException as error:
        raise Failure(f"Kafka cannot be reached: {error.args[0].str()}") from None
    consumer.assign(ends)
    return consumer
