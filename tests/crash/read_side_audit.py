"""Compares Postgres and `results` with the audit's books: each command once, and the same balances.

It reads the tables and the topic as any client does. It must not know the code of the sink.
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
    """`missing` describes what has not arrived yet. Call `differences` once nothing writes any
    more."""

    def __init__(self, stage: Environment, books: list[AuditedBooks]) -> None:
        self._books = books
        self._database = stage.database
        self._topic = CommittedTopic(stage.client, stage.names.results, RESULTS_PARTITIONS)
        self._results: defaultdict[Position, list[dict[str, Any]]] = defaultdict(list)
        self._differences = AuditDifferences()

    def __enter__(self) -> "ReadSideAudit":
        return self

    def __exit__(self, *_: object) -> None:
        self._topic.close()

    def missing(self) -> str:
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
        self._compare_commands(expected)
        self._compare_results(expected)
        self._compare_balances()
        lines = list(self._differences.lines)
        if self._differences.count > len(lines):
            lines.append(f"... and {self._differences.count - len(lines)} more")
        return lines

    def _query(self, statement: str) -> list[Values]:
        with psycopg.connect(self._database) as connection:
            return connection.execute(statement.encode()).fetchall()

    def _read(self) -> None:
        for record in self._topic.new_records():
            result = json.loads(record.value or b"null")
            result["key"] = (record.key or b"").decode()
            result["topic_partition"] = record.partition
            self._results[result["partition"], result["offset"]].append(result)

    def _expected(self) -> dict[Position, tuple[AuditedOutcome, AuditedOutcome]]:
        """Each command's own record, and the record that decided it."""
        return {
            (books.partition, offset): (outcome, books.decisions.get(offset, outcome))
            for books in self._books
            for offset, outcome in books.outcomes.items()
        }

    def _compare_commands(
        self, expected: dict[Position, tuple[AuditedOutcome, AuditedOutcome]]
    ) -> None:
        rows: defaultdict[Position, list[Values]] = defaultdict(list)
        for partition, offset, *row in self._query(
            "SELECT partition, source_offset, outcome, reason, transaction_id::text, first_status"
            " FROM ledger.commands"
        ):
            rows[partition, offset].append(tuple(row))
        for position in sorted(rows.keys() | expected.keys()):
            expected_values = []
            if position in expected:
                own_outcome, decision = expected[position]
                expected_values = [
                    (
                        decision.step,
                        decision.reason,
                        own_outcome.transaction,
                        own_outcome.first_status,
                    )
                ]
            where = f"Postgres, command {position}"
            self._differences.same(where, "rows", rows.get(position, []), expected_values)

    def _compare_results(
        self, expected: dict[Position, tuple[AuditedOutcome, AuditedOutcome]]
    ) -> None:
        for position in sorted(self._results.keys() | expected.keys()):
            # A pending record precedes the final result.
            final = [
                _result_values(each)
                for each in self._results.get(position, [])
                if each["outcome"] != "pending" or each.get("replay")
            ]
            expected_values = []
            if position in expected:
                expected_values = [_result(position, *expected[position])]
            self._differences.same(
                f"results, command {position}", "results", final, expected_values
            )

    def _compare_balances(self) -> None:
        same = self._differences.same
        accounts = {
            id: (
                books.partition,
                account.balance,
                account.held,
                account.incoming,
                account.version,
                account.status,
            )
            for books in self._books
            for id, account in books.accounts.items()
        }
        shards = {
            id: (books.partition, balance, version)
            for books in self._books
            for id, (balance, version) in books.shards.items()
        }
        for table, columns, expected_values in (
            ("accounts", "balance, held, incoming, version, status", accounts),
            ("system_accounts", "balance::text, version", shards),
        ):
            rows: dict[str, Values] = {}
            for id, partition, balance, *row in self._query(
                f"SELECT id, partition, {columns} FROM ledger.{table}"
            ):
                assert id not in rows, f"{table} has {id} twice"
                rows[id] = partition, int(balance), *row
            for id in rows.keys() | expected_values.keys():
                same(f"Postgres, {table}", id, rows.get(id), expected_values.get(id))


def _result(position: Position, own_outcome: AuditedOutcome, decision: AuditedOutcome) -> Values:
    replay = own_outcome.step == "replayed"
    outcome = {"refused": "rejected", "replayed": own_outcome.first_status}.get(
        decision.step, decision.step
    )
    partition, offset = position
    key = own_outcome.transaction or f"{partition}:{offset}"
    return (
        outcome,
        decision.reason,
        own_outcome.transaction,
        replay,
        key,
        partition % RESULTS_PARTITIONS,
    )


def _result_values(result: dict[str, Any]) -> Values:
    reason, transaction = result.get("reason"), result.get("transaction_id")
    replay, key, topic_partition = (
        result.get("replay", False),
        result["key"],
        result["topic_partition"],
    )
    return result["outcome"], reason, transaction, replay, key, topic_partition
