"""This machine's clock against the brokers', which stamp what the ledger reads.

Keeps the rule that a worker with a wrong clock judges no log time: it owns no lane until its clock
agrees. The brokers tell their time by stamping a record in each partition of `coordination`, in a
transaction that is aborted: nobody reads it.
"""

import secrets
import threading
import time
from statistics import median

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plumbing.kafka import clients, transient_errors
from plumbing.kafka.clients import ClientConfig, NoAnswer
from processor.lanes import batch_output
from schemas import coordination
from schemas.topics import Names

log = structlog.get_logger(__name__)

# How far ahead of this clock a record's log time may be.
AHEAD_MS = 3_600_000
# Within this the clocks agree: of two that are, no record is that far ahead.
AGREE_MS = AHEAD_MS // 2
# So far the clock may move against the time that has passed, before the brokers are asked again.
MOVED_S = 60.0
ANSWER_S = 20.0
# While it is open, nobody reads on in `coordination`.
TRANSACTION_MS = 5_000
LOOK_AGAIN_S = 5.0


class ClockDisagrees(Exception):
    """A worker with this clock gives its lanes up."""

    def __init__(self, brokers_ahead_ms: int) -> None:
        how = "ahead of" if brokers_ahead_ms > 0 else "behind"
        super().__init__(
            f"the brokers' clocks are {abs(brokers_ahead_ms) / 1_000:,.0f} s {how} this machine's"
        )
        self.brokers_ahead_ms = brokers_ahead_ms


class Clock:
    """Used by all lanes of a process."""

    def __init__(self, config: ClientConfig, names: Names, partitions: int) -> None:
        self._config = config
        self._topic = names.coordination
        self._partitions = partitions
        self._guard = threading.Lock()
        self._base = _base()

    def latest_ms(self) -> int:
        """A record of a later log time must not be decided."""
        return int(time.time() * 1_000) + AHEAD_MS

    def wait_until_it_agrees(self) -> None:
        """For who owns nothing yet. Kafka may be away."""
        while True:
            try:
                self.check()
            except ClockDisagrees as disagrees:
                log.error("waiting for the clock to agree with the brokers'", reason=str(disagrees))
            except (KafkaException, NoAnswer) as error:
                if not transient_errors.is_transient(error):
                    raise clients.explained(self._config, error) from None
                log.warning("waiting for Kafka", error=str(error))
            else:
                return
            time.sleep(LOOK_AGAIN_S)

    def check_moved(self) -> None:
        """Asks the brokers only if this clock has jumped. Raises ClockDisagrees."""
        if abs(_base() - self._base) > MOVED_S:
            self.check()

    def check(self) -> None:
        """Raises ClockDisagrees."""
        with self._guard:
            base = _base()
            ahead_ms = self._brokers_ahead_ms()
            if abs(ahead_ms) > AGREE_MS:
                raise ClockDisagrees(ahead_ms)
            self._base = base

    def _brokers_ahead_ms(self) -> int:
        """Of the leaders of all partitions the median: one wrong clock does not decide."""
        ahead: list[int] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                ahead.append(message.timestamp()[1] - int(time.time() * 1_000))

        producer = Producer(
            {
                **self._config,
                # Its own: who asks the time fences nobody.
                "transactional.id": f"{self._config['client.id']}:clock-{secrets.token_hex(8)}",
                "transaction.timeout.ms": TRANSACTION_MS,
                "acks": "all",
            }
        )
        producer.init_transactions(ANSWER_S)
        producer.begin_transaction()
        tick = batch_output.encode_message(coordination.Tick())
        for partition in range(self._partitions):
            producer.produce(self._topic, tick, None, partition, on_delivery=note)
        producer.flush(ANSWER_S)
        producer.abort_transaction(ANSWER_S)
        if len(ahead) < self._partitions:
            raise NoAnswer("the brokers did not say what time it is")
        return int(median(ahead))


def _base() -> float:
    """It stays, unless this clock is set."""
    return time.time() - time.monotonic()
