"""How fast the journal gets into Postgres and results: real Kafka, real Postgres, journals that the
rules have made; two sinks, one for each core.

    python -m benchmarks.sink

Prints a JSON line for each measure. The journal is written while the sinks stand still; measured is
from the moment that they may go on until the last row and the last result are committed. Then the
very rows that they have added are copied, by one client, in the same run, into bare tables of the
same shape (no index, no constraint; one COPY for each 24,000 rows), in three ways: `plain` is
psycopg's `copy.write_row` as it comes, and what the target is of; `binary` the same in the binary
format; `ready` sends bytes that lie ready, and so costs no program anything.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition
from psycopg import Connection
from psycopg.rows import TupleRow

from benchmarks import children, load, machine
from benchmarks.load import Account, Command
from compose import provisioning
from compose.embedded import kafka, postgres, programs
from processor.rules import chain, engine
from processor.rules.decision import DecisionInput
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from schemas import coordination, journal
from schemas.coordination import CoordinationMessage
from schemas.encoding import codecs
from schemas.ledger_parameters import RULES_VERSION, Genesis, LedgerParameters
from schemas.topics import RESULTS_POSITIONS, Names
from tests.testkit import brokers

LEDGER_ID = "benchmark"
ROWS_PER_COPY = 24_000
TURN = 2_000
TRANSACTIONS_PER_S = 12_000
TO_BARE_COPY = 0.35
STALLED_S = 120.0
POLL_S = 0.02
GROWING = ("entries", "system_entries", "transactions", "commands")

AVRO = codecs.AvroSchemas()
_encode = msgspec.json.Encoder().encode


class Partition:
    def __init__(self, number: int) -> None:
        self.number = number
        self.state = MemoryState(number)
        self.hash = journal.genesis_hash(LEDGER_ID, number)
        self.offset = self.message_offset = 0
        self.inbox: deque[CoordinationMessage] = deque()
        self.values: list[dict[str, Any]] = []


class Maker:
    """The rules over all partitions, in memory; journals go to Kafka as a processor writes them."""

    def __init__(self, client: machine.Config, names: Names, partitions: int) -> None:
        self._names = names
        self.partitions = [Partition(number) for number in range(partitions)]
        self._producers = []
        first = coordination.Configure(
            settings=LedgerParameters(rules_version=RULES_VERSION),
            genesis=Genesis(ledger_id=LEDGER_ID, partitions=partitions),
        )
        for partition in self.partitions:
            producer = Producer(
                {
                    **client,
                    "transactional.id": f"{names.journal}-maker-{partition.number}",
                    "transaction.timeout.ms": 10_000,
                    "compression.type": "lz4",
                    "queue.buffering.max.messages": 1_000_000,
                }
            )
            producer.init_transactions(30)
            self._producers.append(producer)
            self._apply(partition, engine.genesis(partition.number, first, _encode(first)))
        self._write()

    def make(self, commands: Iterable[Command]) -> None:
        rest = iter(commands)
        while turn := list(islice(rest, TURN)):
            for account, value in turn:
                partition = self.partitions[account.partition]
                message = codecs.decode_command(value, AVRO)
                now_ms = int(time.time() * 1_000)
                self._apply(
                    partition,
                    input_of("commands", partition.offset, account.key, value, now_ms, message),
                )
                partition.offset += 1
            self._deliver()
            self._write()

    def _deliver(self) -> None:
        while any(partition.inbox for partition in self.partitions):
            for partition in self.partitions:
                for _ in range(len(partition.inbox)):
                    message = partition.inbox.popleft()
                    now_ms = int(time.time() * 1_000)
                    self._apply(
                        partition,
                        input_of(
                            "coordination",
                            partition.message_offset,
                            None,
                            _encode(message),
                            now_ms,
                            message,
                        ),
                    )
                    partition.message_offset += 1

    def _apply(self, partition: Partition, input: DecisionInput) -> None:
        for decision in engine.apply(partition.state, input):
            value = chain.seal(decision.record, partition.hash)
            partition.hash = journal.hash_of(value)
            partition.values.append({"key": input.key, "value": value})
            for to, message in decision.messages:
                self.partitions[to].inbox.append(message)

    def _write(self) -> None:
        for partition, producer in zip(self.partitions, self._producers, strict=True):
            if partition.values:
                producer.begin_transaction()
                producer.produce_batch(self._names.journal, partition.values, partition.number)
                producer.commit_transaction(30)
                partition.values.clear()

    def ends(self) -> dict[int, int]:
        return {each.number: each.state.partition.sequence for each in self.partitions}


class Sink:
    def __init__(self, number: int, folder: Path, settings: dict[str, str]) -> None:
        self._log = folder / f"sink-{number}.log"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sinks"],
                cwd=folder,
                env={**inherited, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        children.end_with_us(self._child.pid)
        self.process = psutil.Process(self._child.pid)

    def check(self) -> None:
        if self._child.poll() is not None:
            raise RuntimeError(f"the sink has ended:\n{self._log.read_text()[-3000:]}")

    def wait_for_lane(self) -> None:
        deadline = time.monotonic() + STALLED_S
        while "owning partition" not in self._log.read_text():
            self.check()
            assert time.monotonic() < deadline, "the sink is given no lane"
            time.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Measured(NamedTuple):
    transactions: int
    rows: dict[str, int]
    records: int
    seconds: float
    sink_cpu_s: float
    postgres_cpu_s: float
    broker_cpu_s: float

    def report(self) -> dict[str, Any]:
        each = 1e6 / self.transactions
        return {
            "transactions_per_second": round(self.transactions / self.seconds),
            "rows_per_second": round(sum(self.rows.values()) / self.seconds),
            "journal_records_per_second": round(self.records / self.seconds),
            "transactions": self.transactions,
            "rows": self.rows,
            "seconds": round(self.seconds, 2),
            "sink_cpu_us": round(self.sink_cpu_s * each, 1),
            "postgres_cpu_us": round(self.postgres_cpu_s * each, 1),
            "broker_cpu_us": round(self.broker_cpu_s * each, 1),
        }


class Bench:
    def __init__(
        self,
        maker: Maker,
        sinks: list[Sink],
        database: str,
        ends: "ResultEnds",
        server: psutil.Process,
        broker: psutil.Process,
    ) -> None:
        self._maker = maker
        self._sinks = sinks
        self._database = database
        self._ends = ends
        self._server = server
        self._broker = broker

    def take(self, commands: Iterable[Command]) -> tuple[Measured, dict[int, int]]:
        """Also where each partition's journal stood before."""
        before = self._maker.ends()
        for sink in self._sinks:
            sink.send(signal.SIGSTOP)
        self._maker.make(commands)
        wanted = self._maker.ends()
        began, cpu = time.monotonic(), self._cpu_s()
        for sink in self._sinks:
            sink.send(signal.SIGCONT)
        self._wait(wanted, began)
        seconds, after = time.monotonic() - began, self._cpu_s()
        added = self._counts(before)
        return (
            Measured(
                added["transactions"],
                added,
                sum(wanted.values()) - sum(before.values()),
                seconds,
                *(b - a for a, b in zip(cpu, after, strict=True)),
            ),
            before,
        )

    def _wait(self, wanted: dict[int, int], began: float) -> None:
        with psycopg.connect(self._database, autocommit=True) as connection:
            while True:
                there = connection.execute(
                    "SELECT partition, sequence FROM ledger.positions"
                ).fetchall()
                if dict(there) == wanted and self._ends.reached(wanted):
                    return
                for sink in self._sinks:
                    sink.check()
                assert time.monotonic() - began < STALLED_S, "the sink does not get on"
                time.sleep(POLL_S)

    def _counts(self, since: dict[int, int]) -> dict[str, int]:
        with psycopg.connect(self._database) as connection:
            return {
                table: sum(
                    connection.execute(
                        f"SELECT count(*) FROM ledger.{table}"
                        " WHERE partition = %s AND sequence > %s",
                        (partition, sequence),
                    ).fetchall()[0][0]
                    for partition, sequence in since.items()
                )
                for table in GROWING
            }

    def _cpu_s(self) -> tuple[float, float, float]:
        of_sinks = sum(_cpu_s(sink.process) for sink in self._sinks)
        backends = [self._server, *self._server.children(recursive=True)]
        return of_sinks, sum(map(_cpu_s, backends)), _cpu_s(self._broker)

    def bare_copy(self, since: dict[int, int]) -> dict[str, float]:
        """Seconds that each way takes to copy the rows that were added since."""
        took = dict.fromkeys(("plain", "binary", "ready"), 0.0)
        with psycopg.connect(self._database) as connection:
            for table in GROWING:
                columns, types, rows, ready = _added(connection, table, since)
                statement = f"COPY public.bare ({columns}) FROM STDIN"
                with _bare(connection, table) as clock:
                    for batch in _batches(rows):
                        with connection.cursor().copy(statement) as copy:
                            for row in batch:
                                copy.write_row(row)
                        connection.commit()
                took["plain"] += clock.seconds
                statement += " (FORMAT binary)"
                with _bare(connection, table) as clock:
                    for batch in _batches(rows):
                        with connection.cursor().copy(statement) as copy:
                            copy.set_types(types)
                            for row in batch:
                                copy.write_row(row)
                        connection.commit()
                took["binary"] += clock.seconds
                with _bare(connection, table) as clock:
                    for part in ready:
                        with connection.cursor().copy(statement) as copy:
                            copy.write(part)
                        connection.commit()
                took["ready"] += clock.seconds
        return took


class ResultEnds:
    """How far the results are, as `results.positions` tells it."""

    def __init__(self, client: machine.Config, names: Names, partitions: int) -> None:
        self._consumer = Consumer(
            {
                **client,
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        count = RESULTS_POSITIONS.count(partitions)
        self._consumer.assign([TopicPartition(names.results_positions, n, 0) for n in range(count)])
        self._sequences: dict[int, int] = {}

    def reached(self, wanted: dict[int, int]) -> bool:
        for message in self._consumer.consume(10_000, 0.01):
            value = json.loads(message.value() or b"{}")
            self._sequences[int(message.key() or b"0")] = value["sequence"]
        # A batch without outcomes publishes no position; a later batch does.
        return all(self._sequences.get(p, 0) >= end - 1_000 for p, end in wanted.items())


class _Clock:
    seconds = 0.0


@contextmanager
def _bare(connection: Connection[TupleRow], table: str) -> Iterator[_Clock]:
    """A table of the same columns and nothing else, for the time that is measured."""
    connection.execute(f"CREATE TABLE public.bare (LIKE ledger.{table})")
    connection.commit()
    clock, began = _Clock(), time.monotonic()
    yield clock
    clock.seconds = time.monotonic() - began
    connection.execute("DROP TABLE public.bare")
    connection.commit()


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _added(
    connection: Connection[TupleRow], table: str, since: dict[int, int]
) -> tuple[str, list[str], list[TupleRow], list[bytes]]:
    """Columns with their types, the rows as values, and the same in bytes for one COPY each."""
    named = connection.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND attgenerated = '' ORDER BY attnum",
        (f"ledger.{table}",),
    ).fetchall()
    # An enumeration comes and goes as text.
    types = ["text" if kind.startswith("ledger.") else kind for _, kind in named]
    columns = ", ".join(name for name, _ in named)
    connection.execute("CREATE TEMPORARY TABLE wanted (partition smallint, sequence bigint)")
    connection.cursor().executemany("INSERT INTO wanted VALUES (%s, %s)", list(since.items()))
    query = (
        f"SELECT {columns} FROM ledger.{table} AS added WHERE sequence >"
        " (SELECT sequence FROM wanted WHERE wanted.partition = added.partition) ORDER BY ctid"
    )
    rows = connection.execute(query).fetchall()
    ready = []
    for start in range(0, len(rows), ROWS_PER_COPY):
        part = f"{query} OFFSET {start} LIMIT {ROWS_PER_COPY}"
        statement = f"COPY ({part}) TO STDOUT (FORMAT binary)"
        with connection.cursor().copy(statement) as copy:
            ready.append(b"".join(bytes(part) for part in copy))
    connection.execute("DROP TABLE wanted")
    connection.commit()
    return columns, types, rows, ready


def _batches(rows: list[TupleRow]) -> Iterator[list[TupleRow]]:
    for start in range(0, len(rows), ROWS_PER_COPY):
        yield rows[start : start + ROWS_PER_COPY]


def transfers_within(accounts: list[Account], count: int, seed: int) -> Iterator[Command]:
    """Each between two accounts of one partition, with a commission: three entries."""
    by_partition: dict[int, list[Account]] = {}
    for account in accounts:
        by_partition.setdefault(account.partition, []).append(account)
    groups = list(by_partition.values())
    dice = random.Random(seed)
    for number in range(count):
        sender, receiver = dice.sample(groups[number % len(groups)], 2)
        body = {
            "account": sender.id,
            "kind": "transfer",
            "idempotency_key": f"transfer-{seed}-{number}",
            "to": receiver.id,
            "amount": dice.randrange(100, 1_000),
        }
        yield Command(sender, _encode(body))


@contextmanager
def running(partitions: int, sinks: int) -> Iterator[Bench]:
    never = threading.Event()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-benchmark-"))
    started: list[Sink] = []
    with brokers.data_folder() as where:
        cluster = programs.cluster(where, kafka.KafkaOptions(first_port=brokers.some_port()), never)
        server = programs.server(
            where, postgres.PostgresOptions(first_port=brokers.some_port()), never
        )
        try:
            address, database = cluster.start(never), server.start(never)
            assert server.process is not None
            for pid in (cluster.processes[1].child.pid, server.process.child.pid):
                children.end_with_us(pid)
            settings = {
                "KAFKA_BROKERS": address,
                "PARTITIONS": str(partitions),
                "LEDGER_ID": LEDGER_ID,
                "DATABASE_URL": database,
                # It is stopped while its backlog is made; its group must not miss it meanwhile.
                "SESSION_TIMEOUT_MS": "300000",
            }
            names = Names()
            client: machine.Config = {"bootstrap.servers": address, "log_level": 0}
            provisioning.create_topics(
                address,
                provisioning.ProvisionSettings.model_validate(settings),
            )
            provisioning.migrate(database)
            maker = Maker(client, names, partitions)
            started += [Sink(number, folder, settings) for number in range(sinks)]
            for sink in started:
                sink.wait_for_lane()
            yield Bench(
                maker,
                started,
                database,
                ResultEnds(client, names, partitions),
                psutil.Process(server.process.child.pid),
                psutil.Process(cluster.processes[1].child.pid),
            )
        finally:
            for sink in started:
                sink.kill()
            server.stop()
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)


def tell(measure: str, **facts: object) -> None:
    print(json.dumps({"measure": measure, **facts}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__)
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--sinks", type=int, default=2, help="processes")
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--transactions", type=int, default=300_000, help="in each measure")
    given = parser.parse_args()
    tell(
        "machine",
        sinks=given.sinks,
        partitions=given.partitions,
        cores=os.cpu_count(),
        load_average=machine.load_average(),
    )
    accounts = load.accounts(given.accounts, given.partitions)
    with running(given.partitions, given.sinks) as bench:
        opened, _ = bench.take(load.opens(accounts))
        tell("open accounts", **opened.report())
        count = given.transactions
        works = {
            "credits": load.credits(accounts, count, 1),
            "transfers within partitions": transfers_within(accounts, count, 2),
            "mix over all partitions": load.mix(accounts, count, 3),
        }
        for name, commands in works.items():
            measured, since = bench.take(commands)
            copied = bench.bare_copy(since)
            rate = measured.transactions / measured.seconds
            tell(
                name,
                **measured.report(),
                target=TRANSACTIONS_PER_S,
                met=rate >= TRANSACTIONS_PER_S,
                bare_copy={
                    way: {
                        "transactions_per_second": round(measured.transactions / seconds),
                        "rows_per_second": round(sum(measured.rows.values()) / seconds),
                        "ratio": round(seconds / measured.seconds, 3),
                    }
                    for way, seconds in copied.items()
                },
                ratio_target=TO_BARE_COPY,
                ratio_met=copied["plain"] / measured.seconds >= TO_BARE_COPY,
            )


if __name__ == "__main__":
    main()
