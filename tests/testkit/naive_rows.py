"""The tables as the journal tells them: naive, slow, by dictionaries, nothing shared with the sink.

A second reading of what each column means; tests compare answers with it, and fill tables by it.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TABLES = (
    "positions",
    "accounts",
    "system_accounts",
    "entries",
    "system_entries",
    "transactions",
    "holds",
    "commands",
)


def moment(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else EPOCH + timedelta(milliseconds=time_ms)


class Rows:
    """Rows of every table, in the order in which they came to be, by their keys."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Row]] = {name: {} for name in TABLES}

    def fold(self, ledger_id: str, partition: int, records: Iterable[tuple[int, bytes]]) -> "Rows":
        """A partition's journal: offset and value of each record."""
        format_level = None
        for offset, value in records:
            record = json.loads(value)
            self._record(partition, record)
            if settings := record.get("settings"):
                format_level = settings["format_level"]
            self.tables["positions"][partition] = {
                "partition": partition,
                "ledger_id": ledger_id,
                "next_offset": offset + 1,
                "sequence": record["sequence"],
                "last_hash": hashlib.sha256(value).hexdigest(),
                "time": moment(record["time_ms"]),
                "format_level": format_level,
            }
        return self

    def _record(self, partition: int, record: Row) -> None:
        at = {
            "partition": partition,
            "sequence": record["sequence"],
            "time": moment(record["time_ms"]),
        }
        if record["source"]["topic"] == "commands":
            self._command(at, record)
        elif "command_offset" in record:
            self._decision(at, record)
        if change := record.get("account"):
            self._account(at, change)
        if change := record.get("hold"):
            self._hold(at, change)
        for reservation in (*record.get("released", ()), *record.get("reserved", ())):
            row = self.tables["accounts"][reservation["account"]]
            row |= {"held": reservation["held"], "incoming": reservation["incoming"]}
            row["sequence"] = at["sequence"]
        for entry in record.get("entries", ()):
            self._entry(at, record["transaction_id"], entry)

    def _command(self, at: Row, record: Row) -> None:
        step, command = record["step"], record.get("command", {})
        offset, id = record["source"]["offset"], record.get("transaction_id")
        self.tables["commands"][at["partition"], offset] = {
            **at,
            "source_offset": offset,
            "transaction_id": None if step == "refused" else id,
            "outcome": step,
            "first_status": record.get("first_status"),
            "kind": command.get("kind"),
            "account": command.get("account"),
            "reason": record.get("reason"),
            "detail": record.get("detail"),
            "label": command.get("id") or record.get("refused", {}).get("id"),
            "actor": command.get("actor"),
            "trace": command.get("trace"),
        }
        if step not in ("posted", "rejected", "pending"):
            return
        outcome = record.get("pending", record)
        decided = step != "pending"
        self.tables["transactions"][id] = {
            **at,
            "decided_sequence": at["sequence"] if decided else None,
            "source_offset": offset,
            "amount": _amount(command, record),
            "fee": outcome.get("fee", 0),
            "decided_at": at["time"] if decided else None,
            "effective_at": moment(command.get("effective_at_ms")),
            "id": id,
            "hold_id": command.get("hold_id"),
            "reverses": command.get("transaction_id"),
            "reversed_by": None,
            "status": step,
            "commission_bps": outcome.get("commission_bps", 0),
            "kind": command["kind"],
            "account": command["account"],
            "counterparty": _counterparty(command, record),
            "reason": record.get("reason"),
            "label": command.get("id"),
            "reference": command.get("reference"),
            "description": command.get("description"),
            "actor": command.get("actor"),
            "external_id": command.get("external_id"),
            "metadata": command.get("metadata"),
        }
        self._mark(record)

    def _decision(self, at: Row, record: Row) -> None:
        outcome = {"reason": record.get("reason")}
        self.tables["transactions"][record["transaction_id"]] |= {
            **outcome,
            "status": record["step"],
            "decided_sequence": at["sequence"],
            "decided_at": at["time"],
            "fee": record.get("fee", 0),
            "commission_bps": record.get("commission_bps", 0),
        }
        self.tables["commands"][at["partition"], record["command_offset"]] |= {
            **outcome,
            "outcome": record["step"],
            "detail": record.get("detail"),
        }
        self._mark(record)

    def _mark(self, record: Row) -> None:
        if record["step"] == "posted" and record["command"]["kind"] == "reverse":
            original = self.tables["transactions"][record["command"]["transaction_id"]]
            original["reversed_by"] = record["transaction_id"]

    def _account(self, at: Row, change: Row) -> None:
        facts = {
            name: change.get(name)
            for name in ("id", "type", "currency", "status", "owner", "min_balance", "metadata")
        }
        row = self.tables["accounts"].setdefault(
            change["id"],
            {
                "balance": 0,
                "held": 0,
                "incoming": 0,
                "version": 0,
                "partition": at["partition"],
                "opened_at": at["time"],
            },
        )
        row |= {**facts, "sequence": at["sequence"]}

    def _hold(self, at: Row, change: Row) -> None:
        row = self.tables["holds"].setdefault(
            change["id"], {"placed_at": at["time"], "partition": at["partition"]}
        )
        row |= {
            "amount": change["amount"],
            "captured": change.get("captured", 0),
            "sequence": at["sequence"],
            "changed_at": at["time"],
            "expires_at": moment(change["expires_at_ms"]),
            "id": change["id"],
            "status": change["status"],
            "account": change["account"],
            "currency": change["currency"],
        }

    def _entry(self, at: Row, transaction: str, entry: Row) -> None:
        account, balance = entry["account"], int(entry["balance"])
        row = {
            **at,
            "version": entry["version"],
            "amount": entry["amount"],
            "balance": balance,
            "transaction_id": transaction,
            "direction": entry["direction"],
            "account": account,
        }
        totals = {"balance": balance, "version": entry["version"], "sequence": at["sequence"]}
        if account.startswith("system:"):
            _, role, currency, _ = account.split(":")
            self.tables["system_entries"][account, entry["version"]] = row
            self.tables["system_accounts"][account] = {
                **totals,
                "role": role,
                "partition": at["partition"],
                "currency": currency,
                "id": account,
            }
            return
        row["held"] = entry.get("held", 0)
        self.tables["entries"][account, entry["version"]] = row
        self.tables["accounts"][account] |= {
            **totals,
            "held": entry.get("held", 0),
            "incoming": entry.get("incoming", 0),
        }

    def of(self, table: str, **facts: Any) -> list[Row]:
        """The rows of a table that have these values."""
        rows = self.tables[table].values()
        return [row for row in rows if all(row[name] == value for name, value in facts.items())]

    def by_account(self) -> dict[str, list[Row]]:
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.tables["entries"].values():
            found[row["account"]].append(row)
        return found


def _entries(record: Row) -> list[tuple[str, str, int]]:
    if "pending" in record:
        return [
            (account, side, amount) for _, account, side, amount in record["pending"]["entries"]
        ]
    return [(e["account"], e["direction"], e["amount"]) for e in record.get("entries", ())]


def _requested_amount(command: Row, record: Row) -> list[tuple[str, str, int]]:
    if command["kind"] == "post":
        return [(e["account"], e["direction"], e["amount"]) for e in command["entries"]]
    return _entries(record)


def _amount(command: Row, record: Row) -> int | None:
    if command["kind"] in ("post", "reverse"):
        debits = (
            amount for _, side, amount in _requested_amount(command, record) if side == "debit"
        )
        return sum(debits) or None
    if command["kind"] == "capture" and "amount" not in command:
        entries = _entries(record)
        return entries[0][2] if entries else None
    return command.get("amount")


def _counterparty(command: Row, record: Row) -> str | None:
    if "to" in command:
        return str(command["to"])
    own = command["account"]
    others = [
        account
        for account, _, _ in _requested_amount(command, record)
        if account != own and not account.startswith("system:")
    ]
    return others[0] if len(others) == 1 else None


def copy(database: str, rows: Rows, tables: Sequence[str] = TABLES) -> None:
    with psycopg.connect(database) as connection:
        for table in tables:
            found = list(rows.tables[table].values())
            if not found:
                continue
            columns = list(found[0])
            statement = sql.SQL("COPY ledger.{} ({}) FROM STDIN").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with connection.cursor().copy(statement) as to:
                for row in found:
                    to.write_row([_value(row[column]) for column in columns])


def _value(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value
