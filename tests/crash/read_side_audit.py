"""Postgres and `results` beside the audit's books: each command once in both, and the same money.

It reads the tables and the topic as anybody would and shares no code with the sink.
"""

import json
from collections import defaultdict
from typing import Any

import psycopg

from tests.crash.audited_books import AuditDifferences, AuditedBooks, AuditedOutcome
from tests.crash.committed_topic import CommittedTopic
from tests.testkit.environment import Environment

RESULTS_PARTITIONS = 8
Position = tuple[int, int]
Values = tuple[Any, ...]


class ReadSideAudit:
    """`lacks` says what has not come yet; `differences`, once nothing writes any more, what is
    wrong."""

    def __init__(self, stage: Environment, books: list[AuditedBooks]) -> None:
        self._books = books
        self._database = stage.database
        self._topic = CommittedTopic(stage.client, stage.names.results, RESULTS_PARTITIONS)
        self._results: defaultdict[Position, list[dict[str, Any]]] = defaultdict(list)
        self._noted = AuditDifferences()

    def __enter__(self) -> "ReadSideAudit":
        return self

    def __exit__(self, *_: object) -> None:
        self._topic.close()

    def lacks(self) -> str:
        positions: dict[int, int] = dict(
            self._query("SELECT partition, sequence FROM ledger.positions")
        )
        rows = sum(books.sequence - positions.get(books.partition, 0) for books in self._books)
        if rows:
            return f"{rows} journal records are not in Postgres"
        self._read()
        results = len(self._expected().keys() - self._results.keys())
        return f"{results} commands have no result" if results else ""

    def differences(self) -> list[str]:
        self._read()
        expected = self._expected()
        self._same_commands(expected)
        self._same_results(expected)
        self._same_balances()
        found = list(self._noted.lines)
        if self._noted.count > len(found):
            found.append(f"... and {self._noted.count - len(found)} more")
        return found

    def _query(self, statement: str) -> list[Values]:
        with psycopg.connect(self._database) as connection:
            return connection.execute(statement.encode()).fetchall()

    def _read(self) -> None:
        for record in self._topic.news():
            told = json.loads(record.value or b"null")
            told["key"] = (record.key or b"").decode()
            told["at"] = record.partition
            self._results[told["partition"], told["offset"]].append(told)

    def _expected(self) -> dict[Position, tuple[AuditedOutcome, AuditedOutcome]]:
        """Of each command its own record, and the one that decided it."""
        return {
            (books.partition, offset): (told, books.decided.get(offset, told))
            for books in self._books
            for offset, told in books.told.items()
        }

    def _same_commands(
        self, expected: dict[Position, tuple[AuditedOutcome, AuditedOutcome]]
    ) -> None:
        rows: defaultdict[Position, list[Values]] = defaultdict(list)
        for partition, offset, *row in self._query(
            "SELECT partition, source_offset, outcome, reason, transaction_id::text, first_status"
            " FROM ledger.commands"
        ):
            rows[partition, offset].append(tuple(row))
        for position in sorted(rows.keys() | expected.keys()):
            wanted = []
            if position in expected:
                own, decided = expected[position]
                wanted = [(decided.step, decided.reason, own.transaction, own.first_status)]
            where = f"Postgres, command {position}"
            self._noted.same(where, "rows", rows.get(position, []), wanted)

    def _same_results(
        self, expected: dict[Position, tuple[AuditedOutcome, AuditedOutcome]]
    ) -> None:
        for position in sorted(self._results.keys() | expected.keys()):
            # What is only noted as pending comes before the result.
            final = [
                _told(each)
                for each in self._results.get(position, [])
                if each["outcome"] != "pending" or each.get("replay")
            ]
            wanted = []
            if position in expected:
                wanted = [_result(position, *expected[position])]
            self._noted.same(f"results, command {position}", "results", final, wanted)

    def _same_balances(self) -> None:
        same = self._noted.same
        accounts = {
            id: (books.partition, one.balance, one.held, one.incoming, one.version, one.status)
            for books in self._books
            for id, one in books.accounts.items()
        }
        shards = {
            id: (books.partition, balance, version)
            for books in self._books
            for id, (balance, version) in books.shards.items()
        }
        for table, columns, wanted in (
            ("accounts", "balance, held, incoming, version, status", accounts),
            ("system_accounts", "balance::text, version", shards),
        ):
            found: dict[str, Values] = {}
            for id, partition, balance, *row in self._query(
                f"SELECT id, partition, {columns} FROM ledger.{table}"
            ):
                assert id not in found, f"{table} has {id} twice"
                found[id] = partition, int(balance), *row
            for id in found.keys() | wanted.keys():
                same(f"Postgres, {table}", id, found.get(id), wanted.get(id))


def _result(position: Position, own: AuditedOutcome, decided: AuditedOutcome) -> Values:
    replay = own.step == "replayed"
    outcome = {"refused": "rejected", "replayed": own.first_status}.get(decided.step, decided.step)
    partition, offset = position
    key = own.transaction or f"{partition}:{offset}"
    return outcome, decided.reason, own.transaction, replay, key, partition % RESULTS_PARTITIONS


def _told(result: dict[str, Any]) -> Values:
    reason, transaction = result.get("reason"), result.get("transaction_id")
    replay, key, at = result.get("replay", False), result["key"], result["at"]
    return result["outcome"], reason, transaction, replay, key, at
