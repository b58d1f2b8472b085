"""`streamledger verify`: all copies of the ledger beside its journal, each partition up to a fixed
point.

The points are taken in an order that leaves no copy ahead of the journal: first how far the results
are, then Postgres, in one snapshot, then the state, then the journal, then what it answers and what
readers are told of it. Where a partition's books stand at the sequence that a copy has, that copy
is compared with them. Before that, copies that are behind are waited for. It writes nothing
anywhere.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec
from msgspec import Struct

from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedRecord
from schemas.coordination import LogTime
from schemas.journal import JournalRecord
from schemas.topics import Names
from sinks.verify import expected_effects, published_topics, topic_reader
from sinks.verify.coordination_channels import CoordinationChannels, LaterJournal, UnreadMessages
from sinks.verify.copy_lag import CopyLag
from sinks.verify.dead_letters import DeadLetterComparison
from sinks.verify.input_topics import InputTopic, LogTimes
from sinks.verify.postgres_comparison import PostgresComparison
from sinks.verify.published_topics import PublishedPosition, PublishedTopics, Retention
from sinks.verify.redecide import Redecision
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import (
    CurrencyReport,
    Differences,
    LaggingCopy,
    PartitionReport,
    VerifyReport,
)
from sinks.verify.state_comparison import StateComparison

TOLD_EVERY: Final = 1_000

Progress = Callable[[int, int], None]

_decode: Final = msgspec.json.Decoder(JournalRecord).decode
_FAULTY: Final = (ValueError, KeyError, IndexError, AssertionError, OverflowError)


class VerifyOptions(Struct, frozen=True, kw_only=True):
    """What is to be verified; without a database, all but Postgres."""

    config: ClientConfig
    names: Names
    partitions: int
    database_url: str | None
    against_rules: bool = False


def verify(asked: VerifyOptions, progress: Progress) -> VerifyReport:
    began = time.monotonic()
    differences = Differences()
    copies = CopyLag(asked.config, asked.names, asked.partitions, asked.database_url)
    try:
        behind = copies.wait(differences)
        results_at = [_results_at(copies, each, differences) for each in range(asked.partitions)]
    finally:
        copies.close()
    tables = None
    if asked.database_url is not None:
        tables = PostgresComparison(asked.database_url, differences)
    try:
        return _Run(asked, results_at, tables, behind, differences, progress).run(began)
    finally:
        if tables is not None:
            tables.close()


def _results_at(copies: CopyLag, partition: int, differences: Differences) -> PublishedPosition:
    try:
        return copies.results.at(partition)
    except ValueError as error:
        what = f"their position cannot be read: {error}"
        differences.note("results", what, partition=partition)
        return PublishedPosition()


class _Run:
    def __init__(
        self,
        asked: VerifyOptions,
        results_at: list[PublishedPosition],
        tables: PostgresComparison | None,
        behind: tuple[LaggingCopy, ...],
        differences: Differences,
        progress: Progress,
    ) -> None:
        self._asked = asked
        self._results_at = results_at
        self._tables = tables
        self._behind = behind
        self._kept = published_topics.kept(asked.config, asked.names)
        self._differences = differences
        self._progress = progress
        self._ways = CoordinationChannels(differences)
        self._letters = DeadLetterComparison(
            self._partition(asked.names.commands_dead, 0), differences
        )
        self._compared: Counter[str] = Counter()
        self._debits: Counter[str] = Counter()
        self._credits: Counter[str] = Counter()
        self._transit: Counter[str] = Counter()
        numbers = range(asked.partitions)
        self._changelogs = [
            StateComparison(self._partition(asked.names.state, number), differences)
            for number in numbers
        ]
        self._journals = [self._partition(asked.names.journal, number) for number in numbers]
        self._ranges = []
        for journal in self._journals:
            self._ranges.append(journal.range())
            journal.close()
        # How far the journal of each partition was folded, and `coordination` read by then.
        self._ends = [end for _, end in self._ranges]
        self._next_coordination = [0] * asked.partitions
        self._decided_ahead: dict[int, dict[int, LogTime]] = {}
        self._since: dict[int, LaterJournal] = {}
        self._total = sum(end - start for start, end in self._ranges)
        self._done = 0

    def _partition(
        self, topic: str, number: int, *, trimmed: bool = False
    ) -> topic_reader.TopicPartitionReader:
        return topic_reader.TopicPartitionReader(self._asked.config, topic, number, trimmed=trimmed)

    def run(self, began: float) -> VerifyReport:
        if self._tables is not None:
            self._tables.check_partitions(self._asked.partitions)
            self._results_follow(self._tables)
        told = []
        ledgers: list[str] = []
        for number in range(self._asked.partitions):
            one = _PartitionCheck(
                self._asked,
                number,
                self._results_at[number],
                self._tables,
                self._ways,
                self._letters,
                self._kept,
                self._differences,
            )
            records = self._records(number, one)
            books, report = one.run(self._changelogs[number], records, self._gone_on(number))
            self._compared.update(one.compared)
            self._next_coordination[number] = books.last_inputs["coordination"] + 1
            self._decided_ahead[number] = books.decided_ahead
            self._sum(books)
            told.append(report)
            ledgers.append(books.ledger_id)
            if books.sequence and books.partitions != self._asked.partitions:
                self._differences.note(
                    "journal",
                    f"the ledger has {books.partitions} partitions, not"
                    f" {self._asked.partitions}: PARTITIONS is wrong",
                    partition=number,
                )
        if len({each for each in ledgers if each}) > 1:
            self._differences.note("journal", f"several ledgers: {sorted(set(ledgers))}")
        self._finish_ways()
        self._finish_readers(told)
        currencies = self._whole_books()
        if self._tables is not None:
            self._tables.finish()
            self._compared["rows"] = self._tables.compared
        self._progress(self._total, self._total)
        return VerifyReport(
            agree=not self._differences.counts,
            ledger_id=next((each for each in ledgers if each), ""),
            partitions=tuple(told),
            currencies=currencies,
            behind=self._behind,
            compared=dict(self._compared),
            seconds=round(time.monotonic() - began, 3),
            differences=tuple(self._differences.first),
            difference_counts=dict(self._differences.counts),
        )

    def _gone_on(self, number: int) -> Callable[[], int]:
        """How many records the journal of a partition has by now."""

        def sequence() -> int:
            last = self._journals[number].last()
            try:
                return 0 if last is None else _decode(last.value or b"").sequence
            except msgspec.MsgspecError:
                return 0

        return sequence

    def _finish_ways(self) -> None:
        """What is in flight between partitions must lie in `coordination`."""
        self._ways.compare()
        for number in range(self._asked.partitions):
            of = self._partition(self._asked.names.coordination, number, trimmed=True)
            unread = UnreadMessages(of, self._next_coordination[number], self._asked.partitions)
            self._ways.find(unread, self._journaled_since)
            self._ways.find_decisions(unread, self._decided_ahead[number], self._journaled_since)
            of.close()

    def _journaled_since(self, number: int) -> LaterJournal:
        if number not in self._since:
            self._since[number] = LaterJournal(self._journals[number], self._ends[number])
        return self._since[number]

    def _finish_readers(self, told: list[PartitionReport]) -> None:
        def gone_on(number: int) -> bool:
            there = 0 <= number < len(told)
            return there and self._gone_on(number)() > told[number].sequence

        self._letters.finish(gone_on)
        self._compared["dead letters"] = self._letters.compared
        for journal in self._journals:
            journal.close()
        asked = self._asked
        published_topics.compare_unused(
            asked.config, asked.names, asked.partitions, self._differences
        )

    def _records(self, number: int, one: "_PartitionCheck") -> Iterator[CommittedRecord]:
        """Up to the fixed point; and on, as long as a copy is ahead of it, for a while."""
        journal = self._journals[number]
        start, end = self._ranges[number]
        if start > 0:
            self._differences.note("journal", f"begins at offset {start}", partition=number)
        least = max(self._changelogs[number].sequence, self._results_at[number].sequence)
        if self._tables is not None:
            least = max(least, self._tables.sequence(number))
        deadline: float | None = None
        while True:
            for record in journal.records(start, end):
                self._done += 1
                if self._done % TOLD_EVERY == 0:
                    self._progress(min(self._done, self._total), self._total)
                yield record
            if deadline is None:
                # From here on: the journal itself may have taken much longer.
                deadline = time.monotonic() + topic_reader.CATCH_UP_S
            if one.books.sequence >= least or time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            start, end = end, journal.range()[1]
        self._ends[number] = end
        journal.close()

    def _results_follow(self, tables: PostgresComparison) -> None:
        """What can be seen can be read: the results were looked at before Postgres."""
        for number, at in enumerate(self._results_at):
            there = tables.sequence(number)
            if at.sequence > there:
                what = f"are told up to sequence {at.sequence}, but Postgres has only {there}"
                self._differences.note("results", what, partition=number)

    def _sum(self, books: ReplayedBooks) -> None:
        for currency, (debits, credits, transit) in books.sums().items():
            self._debits[currency] += debits
            self._credits[currency] += credits
            self._transit[currency] += transit

    def _whole_books(self) -> tuple[CurrencyReport, ...]:
        """Over all partitions transit is what the messages under way carry."""
        under_way = self._ways.under_way()
        currencies = sorted({*self._debits, *self._credits, *under_way} - {""})
        for currency in currencies:
            found, expected = self._transit[currency], under_way[currency]
            if found != expected:
                self._differences.note(
                    "books",
                    f"{currency}: transit is {found} over all partitions, but the messages in"
                    f" flight carry {expected}",
                )
        return tuple(
            CurrencyReport(
                currency=currency,
                debits=self._debits[currency],
                credits=self._credits[currency],
                transit=self._transit[currency],
                under_way=under_way[currency],
            )
            for currency in currencies
        )


class _PartitionCheck:
    """One partition's journal from its first record, and each copy where it stands."""

    def __init__(
        self,
        asked: VerifyOptions,
        number: int,
        results_at: PublishedPosition,
        tables: PostgresComparison | None,
        ways: CoordinationChannels,
        letters: DeadLetterComparison,
        kept: Retention,
        differences: Differences,
    ) -> None:
        self.books = ReplayedBooks(number, differences)
        self.compared: Counter[str] = Counter()
        self._asked = asked
        self._number = number
        self._tables = tables
        self._ways = ways
        self._results_at = results_at
        self._letters = letters
        self._kept = kept
        self._differences = differences
        self._decisions = Redecision(number, differences) if asked.against_rules else None
        self._compared_tables = self._compared_state = self._compared_results = False

    def run(
        self,
        changelog: StateComparison,
        records: Iterator[CommittedRecord],
        gone_on: Callable[[], int],
    ) -> tuple[ReplayedBooks, PartitionReport]:
        names, number, books = self._asked.names, self._number, self.books
        commands = topic_reader.TopicPartitionReader(self._asked.config, names.commands, number)
        messages = topic_reader.TopicPartitionReader(
            self._asked.config, names.coordination, number, trimmed=True
        )
        self._changelog = changelog
        self._log_times = LogTimes()
        self._inputs: dict[Literal["commands", "coordination"], InputTopic] = {
            "commands": InputTopic("commands", commands, self._differences, self._log_times),
            "coordination": InputTopic(
                "coordination", messages, self._differences, self._log_times
            ),
        }
        self._readers = PublishedTopics(
            self._asked.config,
            names,
            number,
            self._asked.partitions,
            self._results_at,
            self._kept,
            self._differences,
        )
        self._compare()
        for record in records:
            self._record(record)
            self._compare()
        self._compare(at_the_end=True)
        books.finish()
        if self._decisions is not None:
            self._decisions.finish()
            self.compared["decisions"] = self._decisions.compared
        waiting = self._inputs["commands"].waiting()
        self.compared["journal records"] = books.sequence
        self.compared["commands"] = self._inputs["commands"].compared
        self.compared["messages"] = self._inputs["coordination"].compared
        self.compared["state keys"] = changelog.compared
        self._readers.finish(books.sequence, gone_on)
        self.compared.update(self._readers.compared)
        for of in (commands, messages):
            of.close()
        tables = self._tables
        return books, PartitionReport(
            partition=number,
            sequence=books.sequence,
            postgres=None if tables is None else tables.sequence(number),
            state=changelog.sequence,
            results=self._results_at.sequence,
            waiting=waiting,
            last_hash=books.hash or "",
        )

    def _record(self, read: CommittedRecord) -> None:
        value, books = read.value or b"", self.books
        try:
            record = _decode(value)
        except msgspec.MsgspecError as error:
            books.unreadable(read.offset, value, str(error))
            return
        try:
            self._follow(read, value, record)
        except _FAULTY as error:
            # A record that was tampered with may say anything.
            books.note(f"cannot be followed: {error!r}")

    def _follow(self, read: CommittedRecord, value: bytes, record: JournalRecord) -> None:
        books, next = self.books, self.books.sequence + 1
        time_ms = books.input_time_ms
        if next <= self._changelog.sequence:
            self._changelog.before_fold(books, record)
        expected = expected_effects.compare(books, read.offset, record, self._differences)
        self._ways.before_fold(books, read.offset, record, expected)
        self._tell(read, record)
        books.fold(read.offset, value, record)
        answered = None
        source = record.source.topic
        if source == "commands" or source == "coordination":
            answered = self._inputs[source].answered(read.offset, read.key, record, time_ms)
        self._log_times.fold(record)
        self._letters.fold(read.offset, read.key, record, answered)
        if self._tables is not None and next <= self._tables.sequence(self._number):
            self._tables.fold(self._number, read.offset, record)
        if self._decisions is not None:
            self._decisions.fold(read.offset, read.key, value, record, answered)

    def _tell(self, read: CommittedRecord, record: JournalRecord) -> None:
        try:
            self._readers.before_fold(self.books, read, record)
        except _FAULTY as error:
            self._differences.note(
                "journal",
                f"nobody can be told of it: {error!r}",
                partition=self._number,
                offset=read.offset,
                sequence=record.sequence,
            )

    def _compare(self, *, at_the_end: bool = False) -> None:
        """Each copy once, where the books stand at its sequence."""
        books, tables, changelog = self.books, self._tables, self._changelog
        if tables is not None and not self._compared_tables:
            there = tables.sequence(self._number)
            if at_the_end:
                self._ahead("postgres", there)
            if at_the_end or books.sequence == there:
                self._compared_tables = True
                tables.compare(books)
        if not self._compared_results:
            there = self._results_at.sequence
            if at_the_end:
                self._ahead("results", there)
            if at_the_end or books.sequence == there:
                self._compared_results = True
                self._readers.compare_position(books)
        if not self._compared_state:
            if at_the_end:
                self._ahead("state", changelog.sequence)
            if at_the_end or books.sequence == changelog.sequence:
                self._compared_state = True
                self._compare_state(changelog)

    def _compare_state(self, changelog: StateComparison) -> None:
        number, partitions = self._number, self.books.partitions
        changelog.compare(
            self.books,
            {topic: input.position() for topic, input in self._inputs.items()},
            self._ways.sent_by(number, partitions),
            self._ways.read_by(number, partitions),
            self._log_times.to_come(),
        )

    def _ahead(self, copy: Literal["postgres", "state", "results"], sequence: int) -> None:
        self._differences.note(
            copy,
            f"stands at sequence {sequence}, which is not in the journal; that ends at"
            f" {self.books.sequence}",
            partition=self._number,
        )
