"""The ledger's client: it writes commands to Kafka and reads their results.

It runs on the event loop without a thread. Each tick takes over in one go what librdkafka has done,
so that a delivery or a result costs a few microseconds. Keeps the rule that a result answers a
command only if label, transaction id and position match: any producer may use any label. It knows
no HTTP and no Postgres.
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

CommandPosition = tuple[int, int]

# While a request waits, and while none does.
TICK_S: Final = 0.001
IDLE_TICK_S: Final = 0.05
# Commands linger here before they go to the producer together: the more commands await results, the
# longer, because each batch costs the broker and all consumers. A few commands do not linger.
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
    """The producer's queue is full; the command was not sent."""


class CommandTooLarge(Exception):
    """The ledger would refuse the command for its size; it was not sent."""


class PendingCommand:
    """A command on its way. `position` is None until Kafka has it. `failed` says why the append is
    uncertain; `unplaced` that Kafka did not report the position; `refused` that the producer did
    not take the command. `result` is its outcome."""

    __slots__ = (
        "_early_result",
        "_waiter",
        "_wake_on_delivery",
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
        self.position: CommandPosition | None = None
        self.failed: str | None = None
        self.unplaced = False
        self.refused = False
        self.result: Result | None = None
        self._early_result: Result | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wake_on_delivery = False

    async def wait_for_result(self, wait_s: float) -> Result | None:
        """None: the result is late, or it is not certain that Kafka has the command."""
        if self.result is None and self.failed is None and wait_s > 0:
            await self._wait(wait_s, wake_on_delivery=False)
        return self.result

    async def wait_for_position(self, wait_s: float) -> CommandPosition | None:
        """None: it is not certain in time that Kafka has the command."""
        uncertain = self.failed is not None or self.unplaced
        if self.position is None and self.result is None and not uncertain:
            await self._wait(wait_s, wake_on_delivery=True)
        if self.position is None and self.result is not None:
            self.position = (self.result.partition, self.result.offset)
        return self.position

    async def _wait(self, wait_s: float, *, wake_on_delivery: bool) -> None:
        loop = asyncio.get_running_loop()
        self._wake_on_delivery = wake_on_delivery
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
        early, self._early_result = self._early_result, None
        if early is not None:
            self.take_result(early)
        if self._waiter is not None and (self._wake_on_delivery or error is not None):
            _wake(self._waiter)

    def refuse(self, cause: str) -> None:
        self.failed, self.refused = cause, True
        if self._waiter is not None:
            _wake(self._waiter)

    def take_result(self, result: Result) -> None:
        """Takes the result with our label if it is this command's. One without a transaction id is
        identified by its position alone, so it waits until ours is reported."""
        position = (result.partition, result.offset)
        same_id = result.transaction_id == self.transaction_id
        no_id = result.transaction_id is None
        if self.position is None and no_id and self.failed is None and not self.unplaced:
            self._early_result = result
            return
        matches = same_id if self.position is None else position == self.position
        if not matches or not (same_id or no_id):
            log.warning(
                "a result with our label belongs to another command",
                transaction_id=self.transaction_id,
                partition=result.partition,
                offset=result.offset,
            )
            return
        self.result = result
        if self._waiter is not None:
            _wake(self._waiter)


def _delivered_position(message: Message) -> CommandPosition | None:
    """None: unknown, as after a retried append."""
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None or partition < 0 or offset < 0:
        return None
    return partition, offset


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class ResultWatch:
    """Wakes when a result arrives for a transaction id or a position."""

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
        self._sent = 0
        self._undelivered = 0
        self._lingering: list[tuple[str, bytes, PendingCommand]] = []
        self._linger_timer: asyncio.TimerHandle | None = None
        self._awaited: dict[str, PendingCommand] = {}
        self._watches: dict[str | CommandPosition, list[ResultWatch]] = {}
        self._producer: Producer | None = None
        self._results: Consumer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._warned_at = 0.0
        self._ended: asyncio.Future[None] | None = None

    @property
    def ended(self) -> asyncio.Future[None]:
        """Fails with an unexpected error, after which nothing is sent or received."""
        assert self._ended is not None, "started"
        return self._ended

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    async def start(self) -> None:
        """Receives the results that are written from now on."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._producer = clients.command_producer(self._settings, self._client_id)
        self._results = await asyncio.to_thread(_results_consumer, self._settings, self._client_id)
        self._tick()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._produce()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
        if self._results is not None:
            await asyncio.to_thread(self._results.close)
            self._results = None

    def send(self, command: Command) -> PendingCommand:
        """Hands the command to the producer together with others of the same time. The caller
        forgets it at the end. Raises QueueFull or CommandTooLarge; then it is not sent."""
        assert self._producer is not None, "started"
        self._sent += 1
        label = f"{self._prefix}-{self._sent:x}"
        account = command.account
        value = _encode(msgspec.structs.replace(command, id=label))
        if len(value) > field_types.MAX_COMMAND_BYTES:
            raise CommandTooLarge
        pending = PendingCommand(label, commands.transaction_id(command))
        if len(self._producer) + len(self._lingering) >= MAX_QUEUED_COMMANDS:
            raise QueueFull
        self._lingering.append((account, value, pending))
        self._awaited[label] = pending
        if self._linger_timer is None:
            self._linger()
        if self._idle:
            self._schedule(TICK_S)
        return pending

    def _linger(self) -> None:
        assert self._loop is not None, "started"
        awaited = len(self._awaited)
        if awaited <= LINGER_ABOVE_COMMANDS:
            self._produce()
            return
        pause_s = min(MAX_LINGER_S, awaited * LINGER_S_PER_COMMAND)
        self._linger_timer = self._loop.call_later(pause_s, self._produce)

    def _produce(self) -> None:
        assert self._producer is not None, "started"
        self._linger_timer = None
        lingering, self._lingering = self._lingering, []
        for account, value, pending in lingering:
            partition = partition_of(account, self._partitions)
            try:
                self._producer.produce(
                    self._topic,
                    value,
                    account.encode(),
                    partition,
                    on_delivery=self._delivery_callback(pending),
                )
            except BufferError as error:
                pending.refuse(str(error))
            except KafkaException as error:
                cause = error.args[0].str()
                pending.refuse(cause)
                self._end(Failure(f"the producer of commands failed: {cause}"))
            else:
                self._undelivered += 1

    def forget(self, pending: PendingCommand) -> None:
        self._awaited.pop(pending.label, None)

    @contextmanager
    def watching(self, *keys: str | CommandPosition) -> Iterator[ResultWatch]:
        watch = ResultWatch()
        for key in keys:
            self._watches.setdefault(key, []).append(watch)
        if self._idle:
            self._schedule(TICK_S)
        try:
            yield watch
        finally:
            for key in keys:
                watches = self._watches[key]
                watches.remove(watch)
                if not watches:
                    del self._watches[key]

    def _delivery_callback(
        self, pending: PendingCommand
    ) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            self._undelivered -= 1
            self._crash.reach("submit.3-appended")
            pending.delivered(error, message)

        return delivered

    def _schedule(self, pause_s: float) -> None:
        assert self._loop is not None, "started"
        if self._timer is not None:
            self._timer.cancel()
        self._idle = pause_s > TICK_S
        self._timer = self._loop.call_later(pause_s, self._tick)

    def _tick(self) -> None:
        assert self._producer is not None and self._results is not None, "started"
        try:
            if self._undelivered:
                self._producer.poll(0)
            for message in self._results.consume(MAX_RESULTS_PER_TICK, 0):
                self._take(message)
        except KafkaException as error:
            self._warn(error.args[0])
        except Exception as error:
            self._end(error)
        busy = self._undelivered or self._awaited or self._watches
        self._schedule(TICK_S if busy else IDLE_TICK_S)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._warn(error)
            return
        result = _decode(message.value() or b"")
        pending = self._awaited.get(result.id or "")
        if pending is not None:
            pending.take_result(result)
        if self._watches:
            for key in (result.transaction_id, (result.partition, result.offset)):
                for watch in self._watches.get(key, ()) if key is not None else ():
                    watch.event.set()

    def _warn(self, error: KafkaError) -> None:
        """The client reconnects by itself; meanwhile outcomes are read from Postgres."""
        now = time.monotonic()
        if now - self._warned_at > WARNING_INTERVAL_S:
            self._warned_at = now
            log.warning("results are not arriving", error=error.str())


def _results_consumer(settings: KafkaSettings, client_id: str) -> Consumer:
    """Reads all partitions of `results` from their current ends."""
    topic = settings.topics.results
    consumer = Consumer(
        {
            **clients.long_running_client_config(settings, client_id, log),
            # Required by the client, which never subscribes or commits.
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            # Missed results are read from Postgres.
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 100,
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=START_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise Failure(f"the topic {topic} cannot be read: {metadata.error.str()}")
        ends = []
        for partition in metadata.partitions:
            end = TopicPartition(topic, partition)
            end.offset = consumer.get_watermark_offsets(end, timeout=START_TIMEOUT_S)[1]
            ends.append(end)
    except KafkaException as error:
        raise Failure(f"Kafka cannot be reached: {error.args[0].str()}") from None
    consumer.assign(ends)
    return consumer
