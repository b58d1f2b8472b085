"""`streamledger verify`: compares all copies of the ledger with its journal, each partition up to a
fixed end.

First it waits for copies that lag. Then it reads the ends in an order that leaves no copy ahead of
the journal: the positions of results, one snapshot of Postgres, the state, the journal, the inputs
and the published topics. It replays the journal, and compares each copy when the books reach that
copy's sequence. It writes nothing, and must not know the code that it verifies.
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

PROGRESS_INTERVAL_RECORDS: Final = 1_000

Progress = Callable[[int, int], None]

_decode: Final = msgspec.json.Decoder(JournalRecord).decode
_REPLAY_ERRORS: Final = (ValueError, KeyError, IndexError, AssertionError, OverflowError)


class VerifyOptions(Struct, frozen=True, kw_only=True):
    """What to verify. Without a database URL, all but Postgres."""

    config: ClientConfig
    names: Names
    partitions: int
    database_url: str | None
    against_rules: bool = False


def verify(options: VerifyOptions, progress: Progress) -> VerifyReport:
    started = time.monotonic()
    differences = Differences()
    copy_lag = CopyLag(options.config, options.names, options.partitions, options.database_url)
    try:
        lagging_copies = copy_lag.wait(differences)
        result_positions = [
            _result_position(copy_lag, each, differences) for each in range(options.partitions)
        ]
    finally:
        copy_lag.close()
    tables = None
    if options.database_url is not None:
        tables = PostgresComparison(options.database_url, differences)
    try:
        return _Verification(
            options, result_positions, tables, lagging_copies, differences, progress
        ).run(started)
    finally:
        if tables is not None:
            tables.close()


def _result_position(
    copy_lag: CopyLag, partition: int, differences: Differences
) -> PublishedPosition:
    try:
        return copy_lag.results.position(partition)
    except ValueError as error:
        what = f"the position cannot be decoded: {error}"
        differences.note("results", what, partition=partition)
        return PublishedPosition()


class _Verification:
    def __init__(
        self,
        options: VerifyOptions,
        result_positions: list[PublishedPosition],
        tables: PostgresComparison | None,
        lagging_copies: tuple[LaggingCopy, ...],
        differences: Differences,
        progress: Progress,
    ) -> None:
        self._options = options
        self._result_positions = result_positions
        self._tables = tables
        self._lagging_copies = lagging_copies
        self._retention = published_topics.retention(options.config, options.names)
        self._differences = differences
        self._progress = progress
        self._channels = CoordinationChannels(differences)
        self._dead_letters = DeadLetterComparison(
            self._partition(options.names.commands_dead, 0), differences
        )
        self._compared: Counter[str] = Counter()
        self._debits: Counter[str] = Counter()
        self._credits: Counter[str] = Counter()
        self._transit: Counter[str] = Counter()
        numbers = range(options.partitions)
        self._state_comparisons = [
            StateComparison(self._partition(options.names.state, number), differences)
            for number in numbers
        ]
        self._journals = [self._partition(options.names.journal, number) for number in numbers]
        self._ranges = []
        for journal in self._journals:
            self._ranges.append(journal.range())
            journal.close()
        # Of each partition: the end of its folded journal, and the next offset in `coordination`.
        self._ends = [end for _, end in self._ranges]
        self._next_coordination = [0] * options.partitions
        self._decided_ahead: dict[int, dict[int, LogTime]] = {}
        self._later_journals: dict[int, LaterJournal] = {}
        self._total = sum(end - start for start, end in self._ranges)
        self._done = 0

    def _partition(
        self, topic: str, number: int, *, trimmed: bool = False
    ) -> topic_reader.TopicPartitionReader:
        return topic_reader.TopicPartitionReader(
            self._options.config, topic, number, trimmed=trimmed
        )

    def run(self, started: float) -> VerifyReport:
        if self._tables is not None:
            self._tables.check_partitions(self._options.partitions)
            self._check_results(self._tables)
        partition_reports = []
        ledgers: list[str] = []
        for number in range(self._options.partitions):
            partition_check = _PartitionVerification(
                self._options,
                number,
                self._result_positions[number],
                self._tables,
                self._channels,
                self._dead_letters,
                self._retention,
                self._differences,
            )
            records = self._records(number, partition_check)
            books, report = partition_check.run(
                self._state_comparisons[number], records, self._current_sequence(number)
            )
            self._compared.update(partition_check.compared)
            self._next_coordination[number] = books.last_inputs["coordination"] + 1
            self._decided_ahead[number] = books.decided_ahead
            self._add_sums(books)
            partition_reports.append(report)
            ledgers.append(books.ledger_id)
            if books.sequence and books.partitions != self._options.partitions:
                self._differences.note(
                    "journal",
                    f"the ledger has {books.partitions} partitions, not"
                    f" {self._options.partitions}: PARTITIONS is wrong",
                    partition=number,
                )
        if len({each for each in ledgers if each}) > 1:
            self._differences.note(
                "journal", f"the partitions belong to several ledgers: {sorted(set(ledgers))}"
            )
        self._compare_coordination()
        self._compare_dead_letters(partition_reports)
        currencies = self._compare_transit()
        if self._tables is not None:
            self._tables.finish()
            self._compared["rows"] = self._tables.compared
        self._progress(self._total, self._total)
        return VerifyReport(
            agree=not self._differences.counts,
            ledger_id=next((each for each in ledgers if each), ""),
            partitions=tuple(partition_reports),
            currencies=currencies,
            behind=self._lagging_copies,
            compared=dict(self._compared),
            seconds=round(time.monotonic() - started, 3),
            differences=tuple(self._differences.first),
            difference_counts=dict(self._differences.counts),
        )

    def _current_sequence(self, number: int) -> Callable[[], int]:
        """Returns a function that reads the last sequence of a partition's journal."""

        def sequence() -> int:
            last = self._journals[number].last()
            try:
                return 0 if last is None else _decode(last.value or b"").sequence
            except msgspec.MsgspecError:
                return 0

        return sequence

    def _compare_coordination(self) -> None:
        """Messages in flight must be in `coordination`."""
        self._channels.compare()
        for number in range(self._options.partitions):
            reader = self._partition(self._options.names.coordination, number, trimmed=True)
            unread = UnreadMessages(
                reader, self._next_coordination[number], self._options.partitions
            )
            self._channels.compare_unread(unread, self._later_journal)
            self._channels.compare_log_time_decisions(
                unread, self._decided_ahead[number], self._later_journal
            )
            reader.close()

    def _later_journal(self, number: int) -> LaterJournal:
        if number not in self._later_journals:
            self._later_journals[number] = LaterJournal(self._journals[number], self._ends[number])
        return self._later_journals[number]

    def _compare_dead_letters(self, partition_reports: list[PartitionReport]) -> None:
        def has_grown(number: int) -> bool:
            exists = 0 <= number < len(partition_reports)
            return exists and self._current_sequence(number)() > partition_reports[number].sequence

        self._dead_letters.finish(has_grown)
        self._compared["dead letters"] = self._dead_letters.compared
        for journal in self._journals:
            journal.close()
        options = self._options
        published_topics.compare_unused(
            options.config, options.names, options.partitions, self._differences
        )

    def _records(
        self, number: int, partition_check: "_PartitionVerification"
    ) -> Iterator[CommittedRecord]:
        """The records up to the fixed end, and for a limited time those that a copy already has."""
        journal = self._journals[number]
        start, end = self._ranges[number]
        if start > 0:
            self._differences.note(
                "journal",
                f"starts at offset {start}: earlier records are missing",
                partition=number,
            )
        required_sequence = max(
            self._state_comparisons[number].sequence, self._result_positions[number].sequence
        )
        if self._tables is not None:
            required_sequence = max(required_sequence, self._tables.sequence(number))
        deadline: float | None = None
        while True:
            for record in journal.records(start, end):
                self._done += 1
                if self._done % PROGRESS_INTERVAL_RECORDS == 0:
                    self._progress(min(self._done, self._total), self._total)
                yield record
            if deadline is None:
                # The time limit starts here, because reading the journal may take longer.
                deadline = time.monotonic() + topic_reader.CATCH_UP_S
            if partition_check.books.sequence >= required_sequence or time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            start, end = end, journal.range()[1]
        self._ends[number] = end
        journal.close()

    def _check_results(self, tables: PostgresComparison) -> None:
        """No result may be published before Postgres has its rows. Results were read first."""
        for number, position in enumerate(self._result_positions):
            copy_sequence = tables.sequence(number)
            if position.sequence > copy_sequence:
                what = (
                    f"published up to sequence {position.sequence}, but Postgres has only"
                    f" {copy_sequence}"
                )
                self._differences.note("results", what, partition=number)

    def _add_sums(self, books: ReplayedBooks) -> None:
        for currency, (debits, credits, transit) in books.sums().items():
            self._debits[currency] += debits
            self._credits[currency] += credits
            self._transit[currency] += transit

    def _compare_transit(self) -> tuple[CurrencyReport, ...]:
        """Over all partitions, transit must equal the net amount of messages in flight."""
        in_flight = self._channels.net_in_flight()
        currencies = sorted({*self._debits, *self._credits, *in_flight} - {""})
        for currency in currencies:
            transit, expected = self._transit[currency], in_flight[currency]
            if transit != expected:
                self._differences.note(
                    "books",
                    f"{currency}: transit is {transit} over all partitions, but the messages in"
                    f" flight carry {expected}",
                )
        return tuple(
            CurrencyReport(
                currency=currency,
                debits=self._debits[currency],
                credits=self._credits[currency],
                transit=self._transit[currency],
                under_way=in_flight[currency],
            )
            for currency in currencies
        )


class _PartitionVerification:
    """Replays one partition's journal, and compares each copy at the copy's own sequence."""

    def __init__(
        self,
        options: VerifyOptions,
        number: int,
        result_position: PublishedPosition,
        tables: PostgresComparison | None,
        channels: CoordinationChannels,
        dead_letters: DeadLetterComparison,
        retention: Retention,
        differences: Differences,
    ) -> None:
        self.books = ReplayedBooks(number, differences)
        self.compared: Counter[str] = Counter()
        self._options = options
        self._number = number
        self._tables = tables
        self._channels = channels
        self._result_position = result_position
        self._dead_letters = dead_letters
        self._retention = retention
        self._differences = differences
        self._decisions = Redecision(number, differences) if options.against_rules else None
        self._compared_tables = self._compared_state = self._compared_results = False

    def run(
        self,
        state: StateComparison,
        records: Iterator[CommittedRecord],
        current_sequence: Callable[[], int],
    ) -> tuple[ReplayedBooks, PartitionReport]:
        names, number, books = self._options.names, self._number, self.books
        commands = topic_reader.TopicPartitionReader(self._options.config, names.commands, number)
        messages = topic_reader.TopicPartitionReader(
            self._options.config, names.coordination, number, trimmed=True
        )
        self._state = state
        self._log_times = LogTimes()
        self._inputs: dict[Literal["commands", "coordination"], InputTopic] = {
            "commands": InputTopic("commands", commands, self._differences, self._log_times),
            "coordination": InputTopic(
                "coordination", messages, self._differences, self._log_times
            ),
        }
        self._published = PublishedTopics(
            self._options.config,
            names,
            number,
            self._options.partitions,
            self._result_position,
            self._retention,
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
        waiting = self._inputs["commands"].count_waiting()
        self.compared["journal records"] = books.sequence
        self.compared["commands"] = self._inputs["commands"].compared
        self.compared["messages"] = self._inputs["coordination"].compared
        self.compared["state keys"] = state.compared
        self._published.finish(books.sequence, current_sequence)
        self.compared.update(self._published.compared)
        for reader in (commands, messages):
            reader.close()
        tables = self._tables
        return books, PartitionReport(
            partition=number,
            sequence=books.sequence,
            postgres=None if tables is None else tables.sequence(number),
            state=state.sequence,
            results=self._result_position.sequence,
            waiting=waiting,
            last_hash=books.hash or "",
        )

    def _record(self, topic_record: CommittedRecord) -> None:
        value, books = topic_record.value or b"", self.books
        try:
            record = _decode(value)
        except msgspec.MsgspecError as error:
            books.skip_undecodable(topic_record.offset, value, str(error))
            return
        try:
            self._replay(topic_record, value, record)
        except _REPLAY_ERRORS as error:
            # A forged record may hold anything.
            books.note(f"cannot be replayed: {error!r}")

    def _replay(self, topic_record: CommittedRecord, value: bytes, record: JournalRecord) -> None:
        books, next = self.books, self.books.sequence + 1
        time_ms = books.input_time_ms
        if next <= self._state.sequence:
            self._state.before_fold(books, record)
        expected = expected_effects.compare(books, topic_record.offset, record, self._differences)
        self._channels.before_fold(books, topic_record.offset, record, expected)
        self._compare_published(topic_record, record)
        books.fold(topic_record.offset, value, record)
        input_value = None
        source = record.source.topic
        if source == "commands" or source == "coordination":
            input_value = self._inputs[source].compare(
                topic_record.offset, topic_record.key, record, time_ms
            )
        self._log_times.fold(record)
        self._dead_letters.fold(topic_record.offset, topic_record.key, record, input_value)
        if self._tables is not None and next <= self._tables.sequence(self._number):
            self._tables.fold(self._number, topic_record.offset, record)
        if self._decisions is not None:
            self._decisions.fold(topic_record.offset, topic_record.key, value, record, input_value)

    def _compare_published(self, topic_record: CommittedRecord, record: JournalRecord) -> None:
        try:
            self._published.before_fold(self.books, topic_record, record)
        except _REPLAY_ERRORS as error:
            self._differences.note(
                "journal",
                f"its published records cannot be derived: {error!r}",
                partition=self._number,
                offset=topic_record.offset,
                sequence=record.sequence,
            )

    def _compare(self, *, at_the_end: bool = False) -> None:
        """Compares each copy once, when the books reach its sequence."""
        books, tables, state = self.books, self._tables, self._state
        if tables is not None and not self._compared_tables:
            copy_sequence = tables.sequence(self._number)
            if at_the_end:
                self._note_if_not_reached("postgres", copy_sequence)
            if at_the_end or books.sequence == copy_sequence:
                self._compared_tables = True
                tables.compare(books)
        if not self._compared_results:
            copy_sequence = self._result_position.sequence
            if at_the_end:
                self._note_if_not_reached("results", copy_sequence)
            if at_the_end or books.sequence == copy_sequence:
                self._compared_results = True
                self._published.compare_position(books)
        if not self._compared_state:
            if at_the_end:
                self._note_if_not_reached("state", state.sequence)
            if at_the_end or books.sequence == state.sequence:
                self._compared_state = True
                self._compare_state(state)

    def _compare_state(self, state: StateComparison) -> None:
        number, partitions = self._number, self.books.partitions
        state.compare(
            self.books,
            {topic: input.position() for topic, input in self._inputs.items()},
            self._channels.sent_by(number, partitions),
            self._channels.read_by(number, partitions),
            self._log_times.pending(),
        )

    def _note_if_not_reached(
        self, copy: Literal["postgres", "state", "results"], sequence: int
    ) -> None:
        self._differences.note(
            copy,
            f"is at sequence {sequence}, but the journal ends at {self.books.sequence}",
            partition=self._number,
        )
