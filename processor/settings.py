"""The processor's settings, from the environment and `.env`."""

from pathlib import Path
from typing import Literal

from plumbing.settings import (
    AppSettings,
    KafkaSettings,
    MetricsSettings,
    RehearsalSettings,
    setting,
)
from schemas import topics
from schemas.ledger_parameters import RULES_VERSION
from schemas.ledger_parameters import LedgerParameters as Deciding

_FIRST_OWNER = (
    " A partition's first owner writes it into the ledger. Afterwards the ledger's own value"
    " counts; `streamledger configure` changes it."
)


class ProcessorSettings(AppSettings, KafkaSettings, MetricsSettings, RehearsalSettings):
    data: Path = setting(
        Path(".streamledger/processor"),
        "The folder for the processor's local copy of its partitions; one for each instance.",
        allowed="a folder that this user may write",
    )
    session_timeout_ms: int = setting(
        6_000,
        "How long a processor may send no heartbeat before its partitions go to others.",
        ge=1_000,
        le=300_000,
    )
    cache_entries: int = setting(
        100_000,
        "The maximum number of accounts that the processor keeps decoded in memory.",
        ge=100,
        le=100_000_000,
    )
    rocksdb_mib: int = setting(
        96,
        "Memory for RocksDB in MiB, shared by all partitions of a process: a cache of blocks, and"
        " up to half of it for writes that are not on disk yet.",
        ge=8,
        le=1_000_000,
    )
    schema_registry_url: str | None = setting(
        None,
        "The URL of a schema registry with Confluent's API, for commands in Avro that name a schema"
        " by its id. It may contain user and password. Schemas that were read are kept in DATA.",
        allowed="http:// or https:// and a host",
        default_text="unset: such commands are refused as schema_unknown",
        secret=True,
        pattern=r"^https?://[^/?#]+",
    )
    transactions_encoding: Literal["json", "avro", "confluent"] = setting(
        "json",
        "How entries are written to the topic `transactions`: JSON, Avro as single objects, or Avro"
        " in Confluent's wire format by the id that SCHEMA_REGISTRY_URL gives its schema.",
    )
    commission_bps: int = setting(
        150,
        "The commission on a transfer, in basis points of its amount, paid by the sender beside it."
        + _FIRST_OWNER,
        ge=0,
        le=10_000,
    )
    max_overdraft: int = setting(
        100_000_000,
        "How far below 0 a wallet's limit may be set, in minor units." + _FIRST_OWNER,
        ge=0,
        le=2**53 - 1,
    )
    hold_ttl_ms: int = setting(
        7 * 24 * 3_600_000,
        "How long a hold lasts that names no expiry." + _FIRST_OWNER,
        ge=1,
        le=10 * 365 * 24 * 3_600_000,
    )
    participant_timeout_ms: int = setting(
        60_000,
        "How long a transaction waits for other partitions before it is rejected." + _FIRST_OWNER,
        ge=1,
        le=10 * 365 * 24 * 3_600_000,
    )
    max_pending: int = setting(
        100_000,
        "How many transactions of a partition may wait for other partitions." + _FIRST_OWNER,
        ge=1,
        le=10_000_000,
    )

    def refusals(self) -> list[str]:
        refusals = super().refusals()
        if self.transactions_encoding == "confluent" and self.schema_registry_url is None:
            refusals.append("TRANSACTIONS_ENCODING=confluent: needs SCHEMA_REGISTRY_URL")
        return refusals

    def deciding(self) -> Deciding:
        return Deciding(
            rules_version=RULES_VERSION,
            lanes=topics.lanes(self.partitions),
            commission_bps=self.commission_bps,
            max_overdraft=self.max_overdraft,
            hold_ttl_ms=self.hold_ttl_ms,
            participant_timeout_ms=self.participant_timeout_ms,
            max_pending=self.max_pending,
        )
