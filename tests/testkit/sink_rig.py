"""A journal from the simulation, published to Kafka, and sinks as processes of their own.

The expected tables and results come from the journal's full records and the states of the rules,
and from no code of the sink.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, not marked so
from psycopg.rows import dict_row

from compose.embedded import ports
from schemas import ids
from schemas import state as states
from schemas.journal import JournalRecord
from schemas.ledger_parameters import FORMAT_LEVEL
from schemas.topics import JOURNAL, RESULTS, Names, Topic
from tests.simulation.cluster import LEDGER_ID, Cluster
from tests.simulation.run import Run
from tests.testkit import brokers, naive_results
from tests.testkit.naive_results import PublishedResult
from tests.testkit.programs import Program
from tests.testkit.waiting import eventually

PARTITIONS = 3
Row = dict[str, Any]

_record = msgspec.json.Decoder(JournalRecord).decode


@cache
def history(seed: int = 7, commands: int = 1_500) -> Cluster:
    """Every kind of command, outcome and step, with all that may go wrong between partitions."""
    return Run(seed, commands, PARTITIONS, thorough=True).run()


def records(cluster: Cluster, partition: int) -> list[JournalRecord]:
    return [_record(value) for value in cluster.partitions[partition].whole]


class Sink(Program):
    MODULE = "sinks"


class Proxy:
    """Stands between a sink and its Postgres, and can be cut."""

    def __init__(self, database: str) -> None:
        parts = urlsplit(database)
        self._to = (parts.hostname or "", parts.port or 5432)
        self._port = ports.next_free(brokers.some_port())
        user = parts.netloc.rpartition("@")[0]
        self.database = parts._replace(netloc=f"{user}@{ports.HOST}:{self._port}").geturl()
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.bytes = 0

    def serve(self) -> None:
        self._listener = socket.create_server((ports.HOST, self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """All connections break, and no new one is made."""
        if self._listener is not None:
            # Closing alone would not wake the thread that waits on it.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut_connections()

    def cut_connections(self) -> None:
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65_536):
                self.bytes += len(part)
                target.sendall(part)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Rig:
    def __init__(self, kafka: str, database: str, prefix: str, folder: Path) -> None:
        self.kafka = kafka
        self.database = database
        self.names = Names(prefix)
        self._folder = folder
        self._sinks: list[Sink] = []
        self.settings = {
            "KAFKA_BROKERS": kafka,
            "TOPIC_PREFIX": prefix,
            "PARTITIONS": str(PARTITIONS),
            "LEDGER_ID": LEDGER_ID,
            "DATABASE_URL": database,
            "SESSION_TIMEOUT_MS": "3000",
        }
        brokers.create_topics(kafka, prefix, PARTITIONS)

    def publish(self, partition: int, values: list[bytes], chunk: int = 100) -> None:
        """Journal records as a processor writes them: in committed transactions, some aborted ones
        between."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka,
                "transactional.id": f"{self.names.journal}-maker-{partition}",
                "transaction.timeout.ms": 10_000,
                "linger.ms": 5,
            }
        )
        producer.init_transactions(30)
        for start in range(0, len(values), chunk):
            producer.begin_transaction()
            producer.produce(self.names.journal, b"never committed", None, partition)
            # An abort that overtakes the record may find no transaction to end.
            assert producer.flush(30) == 0
            producer.abort_transaction(30)
            producer.begin_transaction()
            for value in values[start : start + chunk]:
                producer.produce(self.names.journal, value, None, partition)
            producer.commit_transaction(30)

    def stable(self, topic: Topic = JOURNAL) -> bool:
        """Whether the brokers have ended every transaction of the topic, markers and all. They may
        just have come back."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no types
        name, count = self.names.name_of(topic), topic.count(PARTITIONS)
        end_requests = {TopicPartition(name, p): latest for p in range(count)}
        ends = []
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            found = admin.list_offsets(end_requests, isolation_level=level)
            try:
                ends.append([end.result().offset for end in found.values()])
            except KafkaException:
                return False
        return ends[0] == ends[1]

    def publish_part(self, cluster: Cluster, part: int, parts: int) -> None:
        """One of so many equal parts of every partition's journal, in their order."""
        for partition in cluster.partitions:
            whole = partition.whole
            start, end = len(whole) * part // parts, len(whole) * (part + 1) // parts
            self.publish(partition.number, whole[start:end])

    def publish_all(self, cluster: Cluster) -> None:
        for partition in cluster.partitions:
            self.publish(partition.number, partition.whole)

    def sink(self, code: Path | None = None, **settings: str) -> Sink:
        """`code`: the sources of another version."""
        number = len(self._sinks)
        folder = self._folder / f"sink-{number}"
        sink = Sink(number, folder, {**self.settings, **settings}, code)
        self._sinks.append(sink)
        return sink

    def close(self) -> None:
        for sink in self._sinks:
            sink.kill()

    def query(self, statement: str, *parameters: object) -> list[Row]:
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(statement, parameters).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(statement)

    def sequences(self) -> dict[int, int]:
        rows = self.query("SELECT partition, sequence FROM ledger.positions")
        return {row["partition"]: row["sequence"] for row in rows}

    def has_part(self, cluster: Cluster, part: int, parts: int) -> bool:
        ends = {p.number: len(p.whole) * (part + 1) // parts for p in cluster.partitions}
        return self.sequences() == ends

    def has_all(self, cluster: Cluster) -> bool:
        ends = {each.number: each.state.partition.sequence for each in cluster.partitions}
        return self.sequences() == ends

    def results(self) -> list[PublishedResult]:
        """Every result that a read_committed reader sees by now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        count = RESULTS.partitions or 0
        consumer.assign([TopicPartition(self.names.results, n, 0) for n in range(count)])
        found, open_ones = [], set(range(count))
        while open_ones:
            for message in consumer.consume(10_000, 0.1):
                error, partition = message.error(), message.partition() or 0
                if error is None:
                    key = (message.key() or b"").decode()
                    found.append(
                        PublishedResult(partition, key, json.loads(message.value() or b""))
                    )
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    open_ones.discard(partition)
        consumer.close()
        return found

    def reach(self, cluster: Cluster, part: int, parts: int, timeout_s: float = 60) -> None:
        """Until the tables hold everything up to this part, of so many."""
        self._wait(lambda: self.has_part(cluster, part, parts), timeout_s)

    def settle(self, cluster: Cluster, timeout_s: float = 60) -> None:
        """Until tables and results hold all of it."""
        wanted = sum(len(expected_results(cluster, n)) for n in range(PARTITIONS))
        self._wait(lambda: self.has_all(cluster), timeout_s)
        self._wait(lambda: len(self.results()) >= wanted, timeout_s)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Shows the logs of the sinks if the condition does not come true."""
        try:
            eventually(condition, timeout_s)
        except AssertionError as error:
            logs = "\n".join(f"{sink}, {sink.exit_code()}:\n{sink.tail()}" for sink in self._sinks)
            raise AssertionError(f"{error}\n{self.sequences()}\n{logs}") from None

    def check_order(self) -> None:
        """No result can be seen whose row is not there. Not while a sink writes."""
        rows = self.query("SELECT partition, source_offset FROM ledger.commands")
        there = {(row["partition"], row["source_offset"]) for row in rows}
        assert {_place(result) for result in self.results()} <= there

    def check(self, cluster: Cluster) -> None:
        """Tables and results are what the journal says, once each."""
        check_tables(self, cluster)
        found = sorted(self.results(), key=_place)
        expected = [each for n in range(PARTITIONS) for each in expected_results(cluster, n)]
        assert len(found) == len(expected)
        for result, wanted in zip(found, sorted(expected, key=_place), strict=True):
            assert result == wanted, f"{result}, not {wanted}"


def _place(result: PublishedResult) -> tuple[int, int]:
    return result.value["partition"], result.value["offset"]


@contextmanager
def running_rig(kafka: str, database: str, prefix: str, folder: Path) -> Iterator[Rig]:
    rig = Rig(kafka, database, prefix, folder)
    try:
        yield rig
    finally:
        rig.close()


# What the journal says


def expected_results(cluster: Cluster, partition: int) -> list[PublishedResult]:
    results = (naive_results.result_of(record) for record in records(cluster, partition))
    return [result for result in results if result is not None]


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1_000)


def check_tables(rig: Rig, cluster: Cluster) -> None:
    accounts, shards, holds, transactions = {}, {}, {}, {}
    for partition in cluster.partitions:
        for key, value in partition.state.values().items():
            if isinstance(value, states.AccountState):
                accounts[key[1:].decode()] = (partition.number, value)
            elif isinstance(value, states.SystemAccountState):
                shards[key[1:].decode()] = (partition.number, int(value.balance), value.version)
            elif isinstance(value, states.HoldState):
                holds[ids.to_text(key[1:])] = value
            elif isinstance(value, states.TransactionState):
                transactions[ids.to_text(key[1:])] = value
    _check_accounts(rig, accounts)
    found = rig.query("SELECT * FROM ledger.system_accounts")
    assert {r["id"]: (r["partition"], int(r["balance"]), r["version"]) for r in found} == shards
    _check_holds(rig, holds)
    _check_transactions(rig, transactions)
    for partition in cluster.partitions:
        _check_commands(rig, cluster, partition.number)
        _check_entries(rig, cluster, partition.number)
    positions = rig.query("SELECT * FROM ledger.positions")
    assert {
        r["partition"]: (r["sequence"], r["last_hash"], _ms(r["time"]), r["format_level"])
        for r in positions
    } == {
        p.number: (p.state.partition.sequence, p.hash, p.state.partition.time_ms, FORMAT_LEVEL)
        for p in cluster.partitions
    }


def _check_accounts(rig: Rig, expected: dict[str, tuple[int, states.AccountState]]) -> None:
    found = {
        row["id"]: (
            row["partition"],
            states.AccountState(
                row["type"],
                row["currency"],
                row["status"],
                row["owner"],
                row["min_balance"],
                row["balance"],
                row["held"],
                row["incoming"],
                row["version"],
                row["metadata"] or {},
            ),
        )
        for row in rig.query("SELECT * FROM ledger.accounts WHERE available = balance - held")
    }
    assert found == expected


def _check_holds(rig: Rig, expected: Mapping[ids.TransactionId, states.HoldState]) -> None:
    found = {
        str(row["id"]): states.HoldState(
            row["account"],
            row["currency"],
            row["amount"],
            _ms(row["expires_at"]),
            row["status"],
            row["captured"],
        )
        for row in rig.query("SELECT * FROM ledger.holds")
    }
    assert found == expected


def _check_transactions(
    rig: Rig, expected: Mapping[ids.TransactionId, states.TransactionState]
) -> None:
    rows = {str(row["id"]): row for row in rig.query("SELECT * FROM ledger.transactions")}
    assert rows.keys() == expected.keys()
    for id, wanted in expected.items():
        row = rows[id]
        assert (row["status"], row["kind"], row["account"], row["reason"]) == (
            wanted.status,
            wanted.kind,
            wanted.account,
            wanted.reason,
        ), id
        reversal = str(row["reversed_by"]) if row["reversed_by"] else None
        assert reversal == (wanted.reversal if wanted.reversed else None), id
        if wanted.entries or wanted.amount:
            assert (row["fee"], row["commission_bps"]) == (wanted.fee, wanted.commission_bps), id
            assert row["amount"], id


def _check_commands(rig: Rig, cluster: Cluster, partition: int) -> None:
    expected: dict[int, tuple[object, ...]] = {}
    for record in records(cluster, partition):
        offset = record.command_offset
        if offset is None and record.source.topic == "commands":
            offset = record.source.offset
        if offset is not None:
            label = record.command.id if record.command else None
            label = record.refused.id if record.refused else label
            expected[offset] = (
                record.step,
                record.transaction_id,
                record.first_status,
                record.reason,
                record.detail,
                label,
            )
    rows = rig.query("SELECT * FROM ledger.commands WHERE partition = %s", partition)
    assert {
        row["source_offset"]: (
            row["outcome"],
            str(row["transaction_id"]) if row["transaction_id"] else None,
            row["first_status"],
            row["reason"],
            row["detail"],
            row["label"],
        )
        for row in rows
    } == expected


def _check_entries(rig: Rig, cluster: Cluster, partition: int) -> None:
    expected = {
        (entry.account, entry.version): (
            record.transaction_id,
            entry.direction,
            entry.amount,
            int(entry.balance),
            record.sequence,
            record.time_ms,
        )
        for record in records(cluster, partition)
        for entry in record.entries
    }
    rows = rig.query("SELECT * FROM ledger.all_entries WHERE partition = %s", partition)
    assert {
        (row["account"], row["version"]): (
            str(row["transaction_id"]),
            row["direction"],
            row["amount"],
            int(row["balance"]),
            row["sequence"],
            _ms(row["time"]),
        )
        for row in rows
    } == expected
