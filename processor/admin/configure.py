"""`streamledger configure`: changes ledger parameters, by one message to each partition.

A partition takes it when it reads it, between two other records; what is pending keeps what it
began with.
"""

import time
from typing import NamedTuple

import msgspec

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from processor.admin import coordination_sender, running_workers
from processor.admin.running_workers import Groups
from processor.state import record_digest
from processor.state.recovery import check_ledger_id, committed_position
from schemas import coordination
from schemas.ledger_parameters import FORMAT_LEVEL, RULES_VERSIONS, LedgerParameters
from schemas.topics import Names

WAIT_S = 60.0
SERVICES = "processor", "sink"
POLL_S = 0.2


class NothingToChange(Failure):
    exit_code = 2


class Configured(NamedTuple):
    partition: int
    before: LedgerParameters
    after: LedgerParameters
    version: int


def configure(
    config: ClientConfig,
    names: Names,
    ledger_id: str,
    partitions: int,
    groups: Groups,
    changes: dict[str, int],
) -> list[Configured]:
    """Returns when every partition has taken the change; a processor must run for that. Partitions
    that have it already are left as they are. A format level is raised only if a processor and a
    sink run, and every running worker supports it."""
    if not changes:
        raise NothingToChange("name what to change; `streamledger configure --help` lists it")
    with CommittedReader(config) as reader:
        # Raises what says why, where this user may not see the topic.
        reader.partitions(names.state)
        before = {p: _parameters(reader, names, ledger_id, p) for p in range(partitions)}
        after = {p: _changed(parameters, changes) for p, (parameters, _) in before.items()}
        level = max(parameters.format_level for parameters in after.values())
        if any(parameters.format_level < level for parameters, _ in before.values()):
            _check_supported(config, groups, level)
        waiting = {p: before[p][1] for p, parameters in after.items() if parameters != before[p][0]}
        messages = {p: coordination.Configure(settings=after[p]) for p in waiting}
        coordination_sender.send(config, names, messages)
        deadline = time.monotonic() + WAIT_S
        while waiting:
            for partition, version in list(waiting.items()):
                if _parameters(reader, names, ledger_id, partition)[1] > version:
                    del waiting[partition]
            if waiting and time.monotonic() > deadline:
                raise Failure(
                    f"written, but not yet taken by partitions {sorted(waiting)}: does a processor"
                    " run?"
                )
            time.sleep(POLL_S)
    return [
        Configured(p, parameters, after[p], version + (after[p] != parameters))
        for p, (parameters, version) in before.items()
    ]


def _parameters(
    reader: CommittedReader, names: Names, ledger_id: str, partition: int
) -> tuple[LedgerParameters, int]:
    """The parameters of a partition, and how often they were changed."""
    position = committed_position(reader, names, partition)
    if position is None or position.partition.settings is None:
        raise Failure(f"partition {partition} has no ledger yet: start a processor first")
    check_ledger_id(position, ledger_id)
    return position.partition.settings, position.partition.settings_version


def _check_supported(config: ClientConfig, groups: Groups, level: int) -> None:
    workers = running_workers.running(config, groups)
    for service, group in zip(SERVICES, groups, strict=True):
        if not any(worker.service == service for worker in workers):
            raise Failure(
                f"nothing was changed: no {service} is in the consumer group {group}, so it is"
                f" unknown whether every {service} supports format level {level}; start them first"
            )
    behind = [worker for worker in workers if worker.format_level < level]
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
        supported = sorted(RULES_VERSIONS)
        raise Failure(f"this program supports rules versions {supported}, not {rules}: upgrade it")
    if rules < settings.rules_version:
        raise Failure(
            f"the ledger has rules version {settings.rules_version}, which cannot be lowered"
        )
    merged = {**msgspec.to_builtins(settings), **changes}
    try:
        return msgspec.convert(merged, LedgerParameters)
    except msgspec.ValidationError as error:
        raise Failure(f"not allowed: {error}") from None
