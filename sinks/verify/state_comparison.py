"""The processor's state, as the topic `state` has it, beside what the journal makes of it.

What each key must hold is worked out from the books, and compared byte for byte. Of a transaction
only a digest is kept here: there are as many as there ever were commands.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from plumbing.kafka.committed_reader import CommittedRecord
from schemas import commands, coordination, ids, state, state_keys
from schemas.coordination import CoordinatedEntry
from schemas.journal import JournalRecord
from schemas.state import InputPosition, PartitionPosition, TransactionState
from sinks.verify import topic_reader
from sinks.verify.replayed_books import ReplayedBooks, final_entries
from sinks.verify.report import Differences

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_position: Final = msgspec.msgpack.Decoder(PartitionPosition).decode
_decode_transaction: Final = msgspec.msgpack.Decoder(TransactionState).decode
_TYPES: Final[dict[bytes, Any]] = {
    state_keys.ACCOUNT: state.AccountState,
    state_keys.SYSTEM_ACCOUNT: state.SystemAccountState,
    state_keys.HOLD: state.HoldState,
    state_keys.PREPARED: state.PreparedTransaction,
    state_keys.DUE: state.Due,
}
_DIGEST_BYTES: Final = 12
_GONE: Final = b""


class StateComparison:
    """One partition's. Fold each record after the books have it, then compare once."""

    def __init__(self, of: topic_reader.TopicPartitionReader, differences: Differences) -> None:
        self.compared = 0
        self._of = of
        self._differences = differences
        start, end = of.range()
        self._start, self._end = start, end
        last = of.last()
        self._position = None
        if last is not None and last.key == state_keys.POSITION:
            self._position = self._decoded_position(last)
        elif last is not None:
            self._note("the last record is not the position: a transaction was cut")
        of.close()
        # By the 16 bytes of its id: a digest of each transaction, as it is without its reversal.
        self._transactions: dict[bytes, bytes] = {}
        self._reversals: dict[bytes, tuple[str, bool]] = {}

    @property
    def sequence(self) -> int:
        """How many journal records are in it."""
        return 0 if self._position is None else self._position.partition.sequence

    def _decoded_position(self, last: CommittedRecord) -> PartitionPosition | None:
        self._end = last.offset + 1
        try:
            return _decode_position(last.value or b"")
        except msgspec.MsgspecError as error:
            self._note(f"the position cannot be read: {error}")
            return None

    def _note(self, what: str, *, account: str | None = None, id: str | None = None) -> None:
        self._differences.note(
            "state", what, partition=self._of.partition, account=account, transaction_id=id
        )

    # What the journal makes of transactions

    def before_fold(self, books: ReplayedBooks, record: JournalRecord) -> None:
        """Called before the books have the record: what is pending there is there still."""
        id, command, step = record.transaction_id, record.command, record.step
        if step == "answered":
            self._answered(books, record)
        if id is None or command is None or record.body_hash is None:
            return
        if step not in ("posted", "rejected", "pending"):
            return
        made: TransactionState | None
        if step == "pending":
            made = TransactionState(
                bytes.fromhex(record.body_hash),
                "pending",
                commands.kind(command),
                command.account,
                command=command,
                pending=record.pending,
            )
        elif record.command_offset is None:
            made = _decided_at_once(books, record, command)
        else:
            made = _decided_later(books, record, command)
        if made is None:
            return
        self._transactions[ids.to_key(id)] = _digest(_encode(made))
        later = record.command_offset is not None
        if isinstance(command, commands.Reverse) and (step != "rejected" or later):
            self._reverse(ids.to_key(command.transaction_id), id, step)

    def _answered(self, books: ReplayedBooks, record: JournalRecord) -> None:
        """A pending transaction heard from a participant."""
        waited = books.open.get(record.transaction_id or "")
        if waited is None or record.pending is None:
            return
        asked = waited.record
        assert asked.command is not None and asked.body_hash is not None, "it was folded before"
        made = TransactionState(
            bytes.fromhex(asked.body_hash),
            "pending",
            commands.kind(asked.command),
            asked.command.account,
            command=asked.command,
            pending=record.pending,
        )
        self._transactions[ids.to_key(record.transaction_id or "")] = _digest(_encode(made))

    def _reverse(self, original: bytes, id: str, step: str) -> None:
        if step == "rejected":
            self._reversals.pop(original, None)
        else:
            self._reversals[original] = id, step == "posted"

    # The comparison

    def compare(
        self,
        books: ReplayedBooks,
        inputs: dict[Literal["commands", "coordination"], InputPosition],
        sent: tuple[int, ...],
        seen: tuple[int, ...],
        log_times: tuple[state.LogTimeDecision, ...],
    ) -> None:
        """Once the books have just the records that the state has."""
        digests, values = self._read()
        for key, expected in self._expected(books):
            self.compared += 1
            found = values.pop(key, _GONE)
            if found != expected:
                self._differs(key, found, expected)
        for key in values:
            if key[:1] != state_keys.TRANSACTION:
                self._differs(key, values[key], _GONE)
        for id, digest in self._transactions.items():
            self.compared += 1
            if digests.pop(id, _GONE) != digest or id in self._reversals:
                self._compare_transaction(id, digest, values.get(state_keys.TRANSACTION + id))
        for id in digests:
            self._note("has a transaction that the journal has not", id=ids.to_text(id))
        self._same_position(books, inputs, sent, seen, log_times)

    def _read(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Digests of transactions, and all other values, as the last record of each key has them;
        of transactions that have a reversal the values too."""
        digests: dict[bytes, bytes] = {}
        values: dict[bytes, bytes] = {}
        for record in self._of.records(self._start, self._end):
            key, value = record.key or b"", record.value
            if key == state_keys.POSITION:
                continue
            if key[:1] != state_keys.TRANSACTION:
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = value
            elif value is None:
                digests.pop(key[1:], None)
            else:
                digests[key[1:]] = _digest(value)
                if key[1:] in self._reversals:
                    values[key] = value
        return digests, values

    def _expected(self, books: ReplayedBooks) -> Iterator[tuple[bytes, bytes]]:
        for id, account in books.accounts.items():
            change = account.change
            yield (
                state_keys.account(id),
                _encode(
                    state.AccountState(
                        change.type,
                        change.currency,
                        change.status,
                        change.owner,
                        change.min_balance,
                        account.balance,
                        account.held,
                        account.incoming,
                        account.version,
                        change.metadata,
                    )
                ),
            )
        for name, shard in books.shards.items():
            value = state.SystemAccountState(str(shard.balance), shard.version)
            yield state_keys.system_account(name), _encode(value)
        for id, hold in books.holds.items():
            told = hold.change
            yield (
                state_keys.hold(id),
                _encode(
                    state.HoldState(
                        told.account,
                        told.currency,
                        told.amount,
                        told.expires_at_ms,
                        told.status,
                        told.captured,
                    )
                ),
            )
            if told.status == "open":
                yield state_keys.due(told.expires_at_ms, id), _encode(state.Due("hold"))
        for id, waited in books.open.items():
            yield state_keys.due(waited.pending.deadline_ms, id), _encode(state.Due("pending"))
        for id, (record, _) in books.prepared.items():
            message = record.message
            if isinstance(message, coordination.Prepare):
                value_of = state.PreparedTransaction(
                    message.source, message.kind, message.currency, message.account, message.entries
                )
                yield state_keys.prepared(id), _encode(value_of)

    def _differs(self, key: bytes, found: bytes, expected: bytes) -> None:
        kind, name = key[:1], key[1:]
        account = name.decode(errors="replace") if kind in (b"a", b"s") else None
        id = ids.to_text(name[-16:]) if account is None and len(name) >= 16 else None
        told, wanted = _told(kind, found), _told(kind, expected)
        if found and expected:
            what = _first_field(told, wanted)
        else:
            what = f"has {told}, the journal {wanted}"
        self._note(f"key {key!r} {what}", account=account, id=id)

    def _compare_transaction(self, id: bytes, digest: bytes, value: bytes | None) -> None:
        """The digest is of the transaction as it is without its reversal."""
        text = ids.to_text(id)
        if value is None:
            self._note("has another transaction than the journal, or none", id=text)
            return
        try:
            found = _decode_transaction(value)
        except msgspec.MsgspecError as error:
            self._note(f"the transaction cannot be read: {error}", id=text)
            return
        if (found.reversal, found.reversed) != self._reversals[id]:
            told = f"{found.reversal}, {found.reversed}"
            self._note(f"its reversal is {told}, in the journal {self._reversals[id]}", id=text)
        elif _digest(_encode(replace(found, reversal=None, reversed=False))) != digest:
            self._note("has another transaction than the journal", id=text)

    def _same_position(
        self,
        books: ReplayedBooks,
        inputs: dict[Literal["commands", "coordination"], InputPosition],
        sent: tuple[int, ...],
        seen: tuple[int, ...],
        log_times: tuple[state.LogTimeDecision, ...],
    ) -> None:
        position = self._position
        if position is None:
            return
        at = position.partition
        facts: tuple[tuple[str, object, object], ...] = (
            ("partition", at.partition, books.partition),
            ("partitions", at.partitions, books.partitions),
            ("ledger", at.ledger_id, books.ledger_id),
            ("sequence", at.sequence, books.sequence),
            ("time", at.time_ms, books.time_ms),
            ("settings version", at.settings_version, books.settings_version),
            ("settings", at.settings, books.settings),
            ("pending transactions", at.pending, len(books.open)),
            ("coordination messages sent", at.sent, sent),
            ("coordination messages seen", at.seen, seen),
            ("log times", at.log_times, log_times),
            ("last hash", position.last_hash, books.hash),
        )
        for what, found, expected in facts:
            if found != expected:
                self._note(f"the position's {what} is {found}, by the journal {expected}")
        for topic, expected_input in inputs.items():
            found_input: InputPosition = getattr(position, topic)
            if not expected_input.last_digest:
                found_input = replace(found_input, last_digest=b"")
            if found_input != expected_input:
                self._note(
                    f"the position in {topic} is {found_input}, by the journal {expected_input}"
                )


def _decided_at_once(
    books: ReplayedBooks, record: JournalRecord, command: commands.Command
) -> TransactionState | None:
    body_hash = bytes.fromhex(record.body_hash or "")
    kind, account = commands.kind(command), command.account
    if not record.entries:
        posted: Literal["posted", "rejected"] = "posted" if record.step == "posted" else "rejected"
        return TransactionState(body_hash, posted, kind, account, record.reason)
    known = books.accounts.get(account)
    currency = None if known is None else known.change.currency
    if isinstance(command, (commands.Credit, commands.Debit)):
        return TransactionState(body_hash, "posted", kind, account, None, currency, command.amount)
    return TransactionState(
        body_hash,
        "posted",
        kind,
        account,
        currency=currency,
        entries=tuple(
            CoordinatedEntry(index, entry.account, entry.direction, entry.amount)
            for index, entry in enumerate(record.entries)
        ),
        fee=record.fee,
        commission_bps=record.commission_bps,
    )


def _decided_later(
    books: ReplayedBooks, record: JournalRecord, command: commands.Command
) -> TransactionState | None:
    waited = books.open.get(record.transaction_id or "")
    if waited is None:
        return None
    posted, pending = record.step == "posted", waited.pending
    entries = final_entries(pending, record.fee)
    return TransactionState(
        bytes.fromhex(record.body_hash or ""),
        "posted" if posted else "rejected",
        commands.kind(command),
        command.account,
        record.reason,
        currency=pending.currency if posted else None,
        entries=entries if posted else (),
        fee=record.fee,
        commission_bps=record.commission_bps,
    )


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()


def _told(kind: bytes, value: bytes) -> Any:
    type: Callable[..., Any] | None = _TYPES.get(kind)
    if not value:
        return "nothing"
    try:
        return msgspec.msgpack.decode(value, type=type) if type else value
    except msgspec.MsgspecError:
        return value


def _first_field(found: Any, expected: Any) -> str:
    for name in getattr(expected, "__struct_fields__", ()):
        one, other = getattr(found, name, None), getattr(expected, name)
        if one != other:
            return f"has {name} {one}, the journal {other}"
    return f"has {found!r}, the journal {expected!r}"
