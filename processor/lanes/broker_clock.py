"""This machine's clock against the brokers', which stamp what the ledger reads.

Keeps the rule that a worker with a wrong clock judges no log time: it owns no lane until its clock
agrees. Each broker tells its time by stamping a record of `coordination`, in a transaction that is
aborted: nobody reads it. It must not know what happens to the record that raised the question.
"""

import secrets
import threading
import time
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plumbing.kafka import auth_errors, transient_errors
from plumbing.kafka.clients import ClientConfig, NoAnswer
from processor.lanes import batch_output
from schemas import coordination
from schemas.topics import Names

log = structlog.get_logger(__name__)

# How far ahead of this clock a record's log time may be.
MAX_AHEAD_MS = 3_600_000
# Two clocks within this distance agree: no record of one is too far ahead of the other.
TOLERANCE_MS = MAX_AHEAD_MS // 2
# The clock may move this far against monotonic time before the brokers are asked again.
MAX_STEP_S = 60.0
TIMEOUT_S = 20.0
# While the transaction is open, no reader passes it. After kill -9 the brokers abort it.
TRANSACTION_TIMEOUT_MS = 5_000
RETRY_PAUSE_S = 5.0


class BrokerClock(NamedTuple):
    """How far one broker's clock is ahead of this machine's."""

    broker: int
    address: str
    ahead_ms: int

    @property
    def agrees(self) -> bool:
        return abs(self.ahead_ms) <= TOLERANCE_MS

    def __str__(self) -> str:
        side = "ahead of" if self.ahead_ms > 0 else "behind"
        return (
            f"the clock of broker {self.broker} ({self.address}) is"
            f" {abs(self.ahead_ms) / 1_000:,.0f} s {side} this machine's"
        )


class ClockDisagrees(Exception):
    """This machine's clock is wrong: the worker gives its lanes up."""

    def __init__(self, disagreeing: list[BrokerClock], brokers: int) -> None:
        super().__init__(
            f"{len(disagreeing)} of {brokers} brokers disagree: " + "; ".join(map(str, disagreeing))
        )


class WorkerClock:
    """Used by all lanes of a process."""

    def __init__(self, config: ClientConfig, names: Names, partitions: int) -> None:
        self._config = config
        self._topic = names.coordination
        self._partitions = partitions
        self._guard = threading.Lock()
        self._base = _wall_minus_monotonic()

    def latest_log_time_ms(self) -> int:
        """A record with a later log time must not be decided."""
        return int(time.time() * 1_000) + MAX_AHEAD_MS

    def wait_until_brokers_agree(self) -> None:
        """For a worker that owns nothing yet. Kafka may be away."""
        while True:
            try:
                disagreeing = self.check()
            except ClockDisagrees as disagrees:
                log.error("waiting for the clock to agree with the brokers'", reason=str(disagrees))
            except (KafkaException, NoAnswer) as error:
                if not transient_errors.is_transient(error):
                    raise auth_errors.with_operator_hint(self._config, error) from None
                log.warning("waiting for Kafka", error=str(error))
            else:
                for clock in disagreeing:
                    log.warning("broker clock disagrees", reason=str(clock))
                return
            time.sleep(RETRY_PAUSE_S)

    def check_moved(self) -> None:
        """Asks the brokers only if this clock has jumped. Raises ClockDisagrees."""
        if abs(_wall_minus_monotonic() - self._base) > MAX_STEP_S:
            self.check()

    def check(self) -> list[BrokerClock]:
        """The brokers that are wrong. Raises ClockDisagrees if this clock is: no broker agrees with
        it, or less than half of them."""
        with self._guard:
            base = _wall_minus_monotonic()
            clocks = self._broker_clocks()
            disagreeing = [clock for clock in clocks if not clock.agrees]
            if 2 * len(disagreeing) > len(clocks):
                raise ClockDisagrees(disagreeing, len(clocks))
            self._base = base
            return disagreeing

    def _broker_clocks(self) -> list[BrokerClock]:
        """Of each broker that leads a partition of `coordination`, by one record in one of them."""
        producer = Producer(
            {
                **self._config,
                # An id of its own: this producer fences nobody.
                "transactional.id": f"{self._config['client.id']}:clock-{secrets.token_hex(8)}",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "acks": "all",
            }
        )
        cluster = producer.list_topics(self._topic, TIMEOUT_S)
        partitions = cluster.topics[self._topic].partitions
        first_of: dict[int, int] = {}
        for number in sorted(partitions):
            first_of.setdefault(partitions[number].leader, number)
        if len(partitions) < self._partitions or not first_of.keys() <= cluster.brokers.keys():
            raise NoAnswer(f"the brokers do not name a leader of each partition of {self._topic}")
        leaders = {number: leader for leader, number in first_of.items()}
        clocks: list[BrokerClock] = []

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                leader = leaders[message.partition() or 0]
                broker = cluster.brokers[leader]
                ahead_ms = message.timestamp()[1] - int(time.time() * 1_000)
                clocks.append(BrokerClock(leader, f"{broker.host}:{broker.port}", ahead_ms))

        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        tick = batch_output.encode_message(coordination.Tick())
        for number in leaders:
            producer.produce(self._topic, tick, None, number, on_delivery=note)
        producer.flush(TIMEOUT_S)
        producer.abort_transaction(TIMEOUT_S)
        if len(clocks) < len(leaders):
            raise NoAnswer("the brokers did not say what time it is")
        return sorted(clocks)


def _wall_minus_monotonic() -> float:
    """Constant, unless this clock is set."""
    return time.time() - time.monotonic()
