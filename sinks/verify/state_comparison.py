"""Compares the processor's state, as the changelog topic `state` has it, with the journal.

It derives each key from the books and compares it byte for byte. It keeps only a digest of each
transaction, because there is one for each command in the ledger's history. It must not know the
rules.
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
_DELETED: Final = b""


class StateComparison:
    """Covers one partition. Call `before_fold` with each record, then `compare` once."""

    def __init__(self, reader: topic_reader.TopicPartitionReader, differences: Differences) -> None:
        self.compared = 0
        self._reader = reader
        self._differences = differences
        start, end = reader.range()
        self._start, self._end = start, end
        last = reader.last()
        self._position = None
        if last is not None and last.key == state_keys.POSITION:
            self._position = self._decoded_position(last)
        elif last is not None:
            self._note("the last record is not the position: a transaction is incomplete")
        reader.close()
        # By the 16 bytes of a transaction id: the digest of the transaction without its reversal.
        self._transactions: dict[bytes, bytes] = {}
        self._reversals: dict[bytes, tuple[str, bool]] = {}

    @property
    def sequence(self) -> int:
        """The journal sequence that the state has reached."""
        return 0 if self._position is None else self._position.partition.sequence

    def _decoded_position(self, last: CommittedRecord) -> PartitionPosition | None:
        self._end = last.offset + 1
        try:
            return _decode_position(last.value or b"")
        except msgspec.MsgspecError as error:
            self._note(f"the position cannot be decoded: {error}")
            return None

    def _note(self, what: str, *, account: str | None = None, id: str | None = None) -> None:
        self._differences.note(
            "state", what, partition=self._reader.partition, account=account, transaction_id=id
        )

    # Transactions

    def before_fold(self, books: ReplayedBooks, record: JournalRecord) -> None:
        """Call it before the books fold the record, while they still have what is pending."""
        id, command, step = record.transaction_id, record.command, record.step
        if step == "answered":
            self._answered(books, record)
        if id is None or command is None or record.body_hash is None:
            return
        if step not in ("posted", "rejected", "pending"):
            return
        transaction: TransactionState | None
        if step == "pending":
            transaction = TransactionState(
                bytes.fromhex(record.body_hash),
                "pending",
                commands.kind(command),
                command.account,
                command=command,
                pending=record.pending,
            )
        elif record.command_offset is None:
            transaction = _decided_at_once(books, record, command)
        else:
            transaction = _decided_later(books, record, command)
        if transaction is None:
            return
        self._transactions[ids.to_key(id)] = _digest(_encode(transaction))
        later = record.command_offset is not None
        if isinstance(command, commands.Reverse) and (step != "rejected" or later):
            self._reverse(ids.to_key(command.transaction_id), id, step)

    def _answered(self, books: ReplayedBooks, record: JournalRecord) -> None:
        """A pending transaction after a participant's answer."""
        open_transaction = books.open.get(record.transaction_id or "")
        if open_transaction is None or record.pending is None:
            return
        command_record = open_transaction.record
        assert command_record.command is not None and command_record.body_hash is not None, (
            "it was folded before"
        )
        transaction = TransactionState(
            bytes.fromhex(command_record.body_hash),
            "pending",
            commands.kind(command_record.command),
            command_record.command.account,
            command=command_record.command,
            pending=record.pending,
        )
        self._transactions[ids.to_key(record.transaction_id or "")] = _digest(_encode(transaction))

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
        """Call it when the books have reached the sequence of the state."""
        digests, values = self._read()
        for key, expected in self._expected(books):
            self.compared += 1
            actual_value = values.pop(key, _DELETED)
            if actual_value != expected:
                self._note_key(key, actual_value, expected)
        for key in values:
            if key[:1] != state_keys.TRANSACTION:
                self._note_key(key, values[key], _DELETED)
        for id, digest in self._transactions.items():
            self.compared += 1
            if digests.pop(id, _DELETED) != digest or id in self._reversals:
                self._compare_transaction(id, digest, values.get(state_keys.TRANSACTION + id))
        for id in digests:
            self._note("has a transaction that is not in the journal", id=ids.to_text(id))
        self._compare_position(books, inputs, sent, seen, log_times)

    def _read(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """The digests of transactions, and all other values, by the last record of each key. Also
        the values of transactions that have a reversal."""
        digests: dict[bytes, bytes] = {}
        values: dict[bytes, bytes] = {}
        for record in self._reader.records(self._start, self._end):
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
            hold_change = hold.change
            yield (
                state_keys.hold(id),
                _encode(
                    state.HoldState(
                        hold_change.account,
                        hold_change.currency,
                        hold_change.amount,
                        hold_change.expires_at_ms,
                        hold_change.status,
                        hold_change.captured,
                    )
                ),
            )
            if hold_change.status == "open":
                yield state_keys.due(hold_change.expires_at_ms, id), _encode(state.Due("hold"))
        for id, open_transaction in books.open.items():
            yield (
                state_keys.due(open_transaction.pending.deadline_ms, id),
                _encode(state.Due("pending")),
            )
        for id, (record, _) in books.prepared.items():
            message = record.message
            if isinstance(message, coordination.Prepare):
                prepared_state = state.PreparedTransaction(
                    message.source, message.kind, message.currency, message.account, message.entries
                )
                yield state_keys.prepared(id), _encode(prepared_state)

    def _note_key(self, key: bytes, actual_value: bytes, expected: bytes) -> None:
        kind, name = key[:1], key[1:]
        account = name.decode(errors="replace") if kind in (b"a", b"s") else None
        id = ids.to_text(name[-16:]) if account is None and len(name) >= 16 else None
        actual, expected_value = _decode_value(kind, actual_value), _decode_value(kind, expected)
        both = bool(actual_value and expected)
        what = (
            _first_differing_field(actual, expected_value)
            if both
            else f"is {actual}, expected {expected_value}"
        )
        self._note(f"key {key!r} {what}", account=account, id=id)

    def _compare_transaction(self, id: bytes, digest: bytes, value: bytes | None) -> None:
        """Compares the reversal by its value, and the rest by its digest."""
        text = ids.to_text(id)
        if value is None:
            self._note("the transaction is missing, or differs from the journal", id=text)
            return
        try:
            actual_value = _decode_transaction(value)
        except msgspec.MsgspecError as error:
            self._note(f"the transaction cannot be decoded: {error}", id=text)
            return
        if (actual_value.reversal, actual_value.reversed) != self._reversals[id]:
            actual = f"{actual_value.reversal}, {actual_value.reversed}"
            self._note(f"the reversal is {actual}, expected {self._reversals[id]}", id=text)
        elif _digest(_encode(replace(actual_value, reversal=None, reversed=False))) != digest:
            self._note("the transaction differs from the journal", id=text)

    def _compare_position(
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
        partition_position = position.partition
        comparisons: tuple[tuple[str, object, object], ...] = (
            ("partition", partition_position.partition, books.partition),
            ("partitions", partition_position.partitions, books.partitions),
            ("ledger", partition_position.ledger_id, books.ledger_id),
            ("sequence", partition_position.sequence, books.sequence),
            ("time", partition_position.time_ms, books.time_ms),
            ("settings version", partition_position.settings_version, books.settings_version),
            ("settings", partition_position.settings, books.settings),
            ("pending transactions", partition_position.pending, len(books.open)),
            ("coordination messages sent", partition_position.sent, sent),
            ("coordination messages seen", partition_position.seen, seen),
            ("log times", partition_position.log_times, log_times),
            ("last hash", position.last_hash, books.hash),
        )
        for what, actual_value, expected in comparisons:
            if actual_value != expected:
                self._note(f"the position has {what} {actual_value}, expected {expected}")
        for topic, expected_input in inputs.items():
            found_input: InputPosition = getattr(position, topic)
            if not expected_input.last_digest:
                found_input = replace(found_input, last_digest=b"")
            if found_input != expected_input:
                self._note(f"the position in {topic} is {found_input}, expected {expected_input}")


def _decided_at_once(
    books: ReplayedBooks, record: JournalRecord, command: commands.Command
) -> TransactionState | None:
    body_hash = bytes.fromhex(record.body_hash or "")
    kind, account = commands.kind(command), command.account
    if not record.entries:
        posted: Literal["posted", "rejected"] = "posted" if record.step == "posted" else "rejected"
        return TransactionState(body_hash, posted, kind, account, record.reason)
    replayed_account = books.accounts.get(account)
    currency = None if replayed_account is None else replayed_account.change.currency
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
    open_transaction = books.open.get(record.transaction_id or "")
    if open_transaction is None:
        return None
    posted, pending = record.step == "posted", open_transaction.pending
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


def _decode_value(kind: bytes, value: bytes) -> Any:
    type: Callable[..., Any] | None = _TYPES.get(kind)
    if not value:
        return "nothing"
    try:
        return msgspec.msgpack.decode(value, type=type) if type else value
    except msgspec.MsgspecError:
        return value


def _first_differing_field(actual_value: Any, expected: Any) -> str:
    for name in getattr(expected, "__struct_fields__", ()):
        actual_field, expected_field = getattr(actual_value, name, None), getattr(expected, name)
        if actual_field != expected_field:
            return f"has {name} {actual_field}, expected {expected_field}"
    return f"is {actual_value!r}, expected {expected!r}"
