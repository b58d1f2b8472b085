"""`streamledger configure`: change the settings that decide, in every partition, by its own leg.

A partition takes it when it reads it, between two other records; what is pending keeps what it
began with.
"""

import time
from typing import NamedTuple

import msgspec
from confluent_kafka import Producer

from plumbing.failures import Failure
from plumbing.kafka import ClientConfig
from processor import outputs
from processor.committed import CommittedReader
from schemas import legs, state_keys
from schemas.settings import Settings
from schemas.state import Position
from schemas.topics import Names

WAIT_S = 60.0
POLL_S = 0.2

_decode_position = msgspec.msgpack.Decoder(Position).decode


class NothingAsked(Failure):
    exit_code = 2


class Configured(NamedTuple):
    partition: int
    before: Settings
    after: Settings
    version: int


def configure(
    config: ClientConfig, names: Names, partitions: int, changes: dict[str, int]
) -> list[Configured]:
    """Returns when every partition has taken the change; a processor must run for that. Partitions
    that have it already are left as they are."""
    if not changes:
        raise NothingAsked("name what to change; `streamledger configure --help` lists it")
    with CommittedReader(config) as reader:
        before = {p: _position(reader, names.state, p) for p in range(partitions)}
        known = {p: _settled(p, position) for p, position in before.items()}
        wanted = {p: _changed(settings, changes) for p, (settings, _) in known.items()}
        producer = Producer({**config, "acks": "all", "enable.idempotence": True})
        waiting = {p: known[p][1] for p, settings in wanted.items() if settings != known[p][0]}
        for partition in waiting:
            leg = legs.Configure(settings=wanted[partition])
            producer.produce(names.legs, outputs.encode_leg(leg), None, partition)
        if producer.flush(WAIT_S):
            raise Failure("Kafka did not take the change; nothing is known to have changed")
        deadline = time.monotonic() + WAIT_S
        while waiting:
            for partition, version in list(waiting.items()):
                now = _position(reader, names.state, partition)
                if now is not None and now.partition.settings_version > version:
                    del waiting[partition]
            if waiting and time.monotonic() > deadline:
                raise Failure(
                    f"written, but not yet taken by partitions {sorted(waiting)}: does a processor"
                    " run?"
                )
            time.sleep(POLL_S)
    return [
        Configured(p, known[p][0], wanted[p], known[p][1] + (wanted[p] != known[p][0]))
        for p in range(partitions)
    ]


def _position(reader: CommittedReader, topic: str, partition: int) -> Position | None:
    last = reader.last(topic, partition)
    if last is None:
        return None
    assert last.key == state_keys.POSITION, "each transaction ends with the position"
    return _decode_position(last.value or b"")


def _settled(partition: int, position: Position | None) -> tuple[Settings, int]:
    if position is None or position.partition.settings is None:
        raise Failure(f"partition {partition} has no ledger yet: start a processor first")
    return position.partition.settings, position.partition.settings_version


def _changed(settings: Settings, changes: dict[str, int]) -> Settings:
    merged = {**msgspec.to_builtins(settings), **changes}
    try:
        return msgspec.convert(merged, Settings)
    except msgspec.ValidationError as error:
        raise Failure(f"not allowed: {error}") from None
