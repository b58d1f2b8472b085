"""`streamledger configure`: changes ledger parameters, by one message to each partition.

A partition takes it when it reads it, between two other records; what is pending keeps what it
began with.
"""

import time
from typing import NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from processor.admin import running_workers
from processor.admin.running_workers import Groups
from processor.lanes import batch_output
from processor.state import record_digest
from schemas import coordination, state_keys
from schemas.ledger_parameters import FORMAT_LEVEL, RULES_VERSIONS, LedgerParameters
from schemas.state import PartitionPosition
from schemas.topics import Names

WAIT_S = 60.0
POLL_S = 0.2


class NothingAsked(Failure):
    exit_code = 2


class Configured(NamedTuple):
    partition: int
    before: LedgerParameters
    after: LedgerParameters
    version: int


def configure(
    config: ClientConfig, names: Names, partitions: int, groups: Groups, changes: dict[str, int]
) -> list[Configured]:
    """Returns when every partition has taken the change; a processor must run for that. Partitions
    that have it already are left as they are. A format level is raised only while every running
    worker supports it."""
    if not changes:
        raise NothingAsked("name what to change; `streamledger configure --help` lists it")
    with CommittedReader(config) as reader:
        # Raises what says why, where this user may not see the topic.
        reader.partitions(names.state)
        before = {p: _position(reader, names.state, p) for p in range(partitions)}
        known = {p: _settled(p, position) for p, position in before.items()}
        wanted = {p: _changed(settings, changes) for p, (settings, _) in known.items()}
        level = max(settings.format_level for settings in wanted.values())
        if any(settings.format_level < level for settings, _ in known.values()):
            _check_supported(config, groups, level)
        producer = Producer({**config, "acks": "all", "enable.idempotence": True})
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        waiting = {p: known[p][1] for p, settings in wanted.items() if settings != known[p][0]}
        for partition in waiting:
            message = coordination.Configure(settings=wanted[partition])
            producer.produce(
                names.coordination,
                batch_output.encode_message(message),
                None,
                partition,
                on_delivery=delivered,
            )
        if producer.flush(WAIT_S):
            raise Failure("Kafka did not take the change; nothing is known to have changed")
        if refused:
            raise KafkaException(refused[0])
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


def _position(reader: CommittedReader, topic: str, partition: int) -> PartitionPosition | None:
    last = reader.last(topic, partition)
    if last is None:
        return None
    assert last.key == state_keys.POSITION, "each transaction ends with the position"
    return record_digest.decode(last.value or b"")


def _settled(partition: int, position: PartitionPosition | None) -> tuple[LedgerParameters, int]:
    if position is None or position.partition.settings is None:
        raise Failure(f"partition {partition} has no ledger yet: start a processor first")
    return position.partition.settings, position.partition.settings_version


def _check_supported(config: ClientConfig, groups: Groups, level: int) -> None:
    behind = [each for each in running_workers.running(config, groups) if each.format_level < level]
    if behind:
        raise Failure(
            f"nothing was changed: these workers do not support format level {level}; upgrade them"
            " or stop them:",
            *map(str, behind),
        )


def _changed(settings: LedgerParameters, changes: dict[str, int]) -> LedgerParameters:
    if settings.format_level > FORMAT_LEVEL:
        raise Failure(record_digest.too_new(settings.format_level))
    level = changes.get("format_level", settings.format_level)
    if level > FORMAT_LEVEL:
        raise Failure(f"this program supports format level {FORMAT_LEVEL}, not {level}: upgrade it")
    if level < settings.format_level:
        raise Failure(
            f"the ledger has format level {settings.format_level}, which cannot be lowered"
        )
    rules = changes.get("rules_version", settings.rules_version)
    if rules not in RULES_VERSIONS:
        known = sorted(RULES_VERSIONS)
        raise Failure(f"this program supports rules versions {known}, not {rules}: upgrade it")
    if rules < settings.rules_version:
        raise Failure(
            f"the ledger has rules version {settings.rules_version}, which cannot be lowered"
        )
    merged = {**msgspec.to_builtins(settings), **changes}
    try:
        return msgspec.convert(merged, LedgerParameters)
    except msgspec.ValidationError as error:
        raise Failure(f"not allowed: {error}") from None
