"""`streamledger log-time`: an operator's decision on the time of records that a broker stamped with
a clock far in the future.

The partition journals it before it decides the records, so that a replay decides them the same. It
never makes a record later than its log says.
"""

import time
from datetime import datetime

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from processor.admin import coordination_sender
from processor.lanes.broker_clock import MAX_AHEAD_MS
from processor.lanes.log_time_decisions import time_text
from processor.state.recovery import committed_position
from schemas.coordination import LogTime
from schemas.topics import Names


def time_ms(text: str) -> int:
    """Of a time such as 2026-01-31T12:00:00Z."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise Failure(f"{text!r} is not a time with its zone, such as 2026-01-31T12:00:00Z")
    return int(parsed.timestamp() * 1_000)


def give(config: ClientConfig, names: Names, partition: int, decision: LogTime) -> None:
    """Write it to the partition. A processor takes it when it comes to the first of the records, or
    when it reads on in `coordination`."""
    with CommittedReader(config) as reader:
        _check(reader, names, partition, decision)
    coordination_sender.send(config, names, {partition: decision})


def _check(reader: CommittedReader, names: Names, partition: int, decision: LogTime) -> None:
    topic = names.commands if decision.topic == "commands" else names.coordination
    where = f"partition {partition} of `{topic}`"
    if not 0 <= partition < reader.partitions(topic):
        raise Failure(f"`{topic}` has no partition {partition}")
    if decision.time_ms > time.time() * 1_000 + MAX_AHEAD_MS:
        raise Failure(
            f"{time_text(decision.time_ms)} lies in the future; a processor would refuse it"
        )
    position = committed_position(reader, names, partition)
    if position is None:
        raise Failure(f"partition {partition} has no ledger yet: start a processor first")
    read = position.commands if decision.topic == "commands" else position.coordination
    if decision.first < read.next_offset:
        raise Failure(f"{where}: the record at {decision.first} was decided, at its log's own time")
    _, end = reader.range(topic, partition)
    if not decision.first <= decision.last < end:
        raise Failure(f"{where} has offsets up to {end - 1}, not {decision.last}")
    records = reader.read(topic, partition, decision.first, decision.last + 1)
    if not any(record.time_ms > decision.time_ms for record in records):
        raise Failure(f"{where}: nothing there is later than {time_text(decision.time_ms)}")
