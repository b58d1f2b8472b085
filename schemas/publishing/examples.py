"""One example of each message as it is in the topics; the published examples show these.

The amounts and ids agree with each other where one message follows from another.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from schemas import commands as c
from schemas import coordination, ids, journal, published_records, state
from schemas.ledger_parameters import RULES_VERSION, Genesis, LedgerParameters
from schemas.reasons import Reason

TIME_MS: Final = 1_767_225_600_000
_DAY_MS: Final = 86_400_000

_TRANSFER_ID: Final = ids.transaction_id("w1", "transfer-1")
_HOLD_ID: Final = ids.transaction_id("w1", "hold-1")
_REVERSAL_ID: Final = ids.transaction_id("w1", "reverse-1")
_BODY_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

COMMANDS: Final[dict[str, c.Command]] = {
    "open_account": c.OpenAccount(
        account="w1",
        id="open-1",
        type="wallet",
        currency="NGN",
        owner="user-1",
        metadata={"tier": "basic"},
    ),
    "set_limit": c.SetLimit(account="w1", id="limit-1", min_balance=-50_000, actor="operator-1"),
    "change_account": c.ChangeAccount(
        account="w1",
        id="change-1",
        min_balance=-75_000,
        metadata={"name": "Ada's savings", "campaign": ""},
        actor="operator-1",
    ),
    "credit": c.Credit(
        account="w1", id="credit-1", amount=1_000_000, currency="NGN", reference="pay-in 7781"
    ),
    "debit": c.Debit(account="w1", id="debit-1", amount=25_000, expected_version=3),
    "transfer": c.Transfer(
        account="w1",
        id="submission-9",
        idempotency_key="transfer-1",
        to="w2",
        amount=125_000,
        currency="NGN",
        description="rent, première moitié",
        metadata={"invoice": "2026-01"},
        trace="4bf92f3577b34da6",
        min_available_after=10_000,
        effective_at_ms=TIME_MS - _DAY_MS,
        external_id="bank-17",
    ),
    "post": c.Post(
        account="assets:bank",
        id="post-1",
        currency="NGN",
        entries=(
            c.PostEntry(account="assets:bank", direction="debit", amount=700_000),
            c.PostEntry(account="revenue:sales", direction="credit", amount=650_000),
            c.PostEntry(account="system:fees:NGN", direction="credit", amount=50_000),
        ),
    ),
    "hold": c.Hold(
        account="w1", id="hold-1", amount=60_000, currency="NGN", expires_at_ms=TIME_MS + _DAY_MS
    ),
    "capture": c.Capture(
        account="w1", id="capture-1", hold_id=_HOLD_ID, to="merchant-3", amount=45_000
    ),
    "void": c.Void(account="w1", id="void-1", hold_id=_HOLD_ID),
    "reverse": c.Reverse(account="w1", id="reverse-1", transaction_id=_TRANSFER_ID),
    "freeze": c.Freeze(account="w1", id="freeze-1", reference="case 12"),
    "unfreeze": c.Unfreeze(account="w1", id="unfreeze-1"),
    "close": c.Close(account="w1", id="close-1"),
}

_RECEIVER: Final = coordination.CoordinatedEntry(1, "w2", "credit", 125_000)
_ENTRIES: Final = (
    coordination.CoordinatedEntry(0, "w1", "debit", 126_875),
    _RECEIVER,
    coordination.CoordinatedEntry(2, "system:fees:NGN:7", "credit", 1_875),
)

_SETTINGS: Final = LedgerParameters(lanes=2, rules_version=RULES_VERSION)

COORDINATION: Final[dict[str, coordination.CoordinationMessage]] = {
    "prepare": coordination.Prepare(
        source=7,
        number=1,
        transaction_id=_TRANSFER_ID,
        kind="transfer",
        currency="NGN",
        account="w1",
        entries=(_RECEIVER,),
        owner="user-1",
    ),
    "prepared": coordination.Prepared(source=2, number=1, transaction_id=_TRANSFER_ID),
    "refused": coordination.Refused(
        source=2, number=1, transaction_id=_TRANSFER_ID, reason=Reason.ACCOUNT_FROZEN, index=1
    ),
    "commit": coordination.Commit(
        source=7,
        number=2,
        transaction_id=_TRANSFER_ID,
        counterparty="w1",
        description="rent, première moitié",
        metadata={"invoice": "2026-01"},
    ),
    "abort": coordination.Abort(source=7, number=2, transaction_id=_TRANSFER_ID),
    "tick": coordination.Tick(),
    "log_time": coordination.LogTime(topic="commands", first=44, last=46, time_ms=TIME_MS),
    "configure": coordination.Configure(
        settings=_SETTINGS, genesis=Genesis(ledger_id="streamledger", partitions=8)
    ),
}

_PENDING: Final = journal.PendingTransaction(
    entries=_ENTRIES,
    participants=(2,),
    waiting=(2,),
    currency="NGN",
    deadline_ms=TIME_MS + 60_000,
    offset=41,
    fee=1_875,
    commission_bps=150,
)
_OPEN: Final = journal.HoldChange(
    id=_HOLD_ID,
    account="w1",
    currency="NGN",
    amount=60_000,
    expires_at_ms=TIME_MS + _DAY_MS,
    status="open",
)


def _record(sequence: int, source: journal.InputSource, step: journal.Step, **rest: Any) -> Any:
    return journal.JournalRecord(
        partition=7,
        sequence=sequence,
        time_ms=TIME_MS,
        source=source,
        step=step,
        settings_version=1,
        **rest,
    )


def _command(offset: int) -> journal.InputSource:
    return journal.InputSource("commands", offset)


def _message(offset: int) -> journal.InputSource:
    return journal.InputSource("coordination", offset)


JOURNAL: Final[dict[str, journal.JournalRecord]] = {
    "configured": _record(
        1,
        _message(0),
        "configured",
        message=COORDINATION["configure"],
        settings=_SETTINGS,
        genesis=Genesis(ledger_id="streamledger", partitions=8),
    ),
    "posted": _record(
        3,
        _command(39),
        "posted",
        command=COMMANDS["credit"],
        body_hash=_BODY_HASH,
        transaction_id=ids.transaction_id("w1", "credit-1"),
        entries=(
            journal.Entry("system:funding:NGN:7", "debit", 1_000_000, "1000000", 1),
            journal.Entry("w1", "credit", 1_000_000, 1_000_000, 1),
        ),
    ),
    "rejected": _record(
        4,
        _command(40),
        "rejected",
        command=COMMANDS["debit"],
        body_hash=_BODY_HASH,
        transaction_id=ids.transaction_id("w1", "debit-1"),
        reason=Reason.CONDITION_FAILED,
    ),
    "refused": _record(
        5,
        _command(41),
        "refused",
        refused=journal.RefusedInput(size=10, head="eyJpZCI6ICJ4", id="x"),
        digest=_BODY_HASH,
        reason=Reason.MALFORMED,
        detail="invalid JSON near character 10",
    ),
    "pending": _record(
        6,
        _command(42),
        "pending",
        command=COMMANDS["transfer"],
        body_hash=_BODY_HASH,
        transaction_id=_TRANSFER_ID,
        reserved=(journal.Reservation("w1", "debit", 126_875, 126_875, 0),),
        pending=_PENDING,
        sent=(journal.SentNumber(2, 1),),
    ),
    "replayed": _record(
        7,
        _command(43),
        "replayed",
        command=COMMANDS["transfer"],
        body_hash=_BODY_HASH,
        transaction_id=_TRANSFER_ID,
        first_status="pending",
    ),
    "answered": _record(
        8,
        _message(4),
        "answered",
        message=COORDINATION["prepared"],
        transaction_id=_TRANSFER_ID,
        pending=_PENDING,
    ),
    "prepared": _record(
        9,
        _message(5),
        "prepared",
        message=COORDINATION["prepare"],
        transaction_id=_TRANSFER_ID,
        reserved=(journal.Reservation("w2", "credit", 125_000, 0, 125_000),),
        sent=(journal.SentNumber(7, 1),),
    ),
    "declined": _record(
        10,
        _message(6),
        "declined",
        message=COORDINATION["prepare"],
        transaction_id=_TRANSFER_ID,
        reason=Reason.ACCOUNT_FROZEN,
        sent=(journal.SentNumber(7, 1),),
    ),
    "committed": _record(
        11,
        _message(7),
        "committed",
        message=COORDINATION["commit"],
        transaction_id=_TRANSFER_ID,
        released=(journal.Reservation("w2", "credit", 125_000, 0, 0),),
        entries=(
            journal.Entry("w2", "credit", 125_000, 125_000, 1),
            journal.Entry("system:transit:NGN:2", "debit", 125_000, "-125000", 1),
        ),
    ),
    "aborted": _record(
        12,
        _message(8),
        "aborted",
        message=COORDINATION["abort"],
        transaction_id=_TRANSFER_ID,
        released=(journal.Reservation("w2", "credit", 125_000, 0, 0),),
    ),
    "expired": _record(
        13,
        journal.InputSource("expiry"),
        "expired",
        transaction_id=_HOLD_ID,
        released=(journal.Reservation("w1", "debit", 60_000, 0, 0),),
        hold=msgspec.structs.replace(_OPEN, status="expired"),
    ),
    "timed": _record(17, _message(12), "timed", message=COORDINATION["log_time"]),
    "ticked": _record(14, _message(9), "ticked", message=COORDINATION["tick"]),
    "duplicate": _record(15, _message(10), "duplicate", message=COORDINATION["prepared"]),
    "ignored": _record(
        16, _message(11), "ignored", message=COORDINATION["abort"], transaction_id=_TRANSFER_ID
    ),
}

TRANSACTION: Final = published_records.TransactionRecord(
    user_id="user-1",
    entry="debit",
    amount=126_875,
    balance=873_125,
    timestamp="2026-01-01T00:00:00.000000Z",
    account_id="w1",
    currency="NGN",
    transaction_id=_TRANSFER_ID,
    kind="transfer",
    held=60_000,
    available=813_125,
    version=2,
    counterparty="w2",
    fee=1_875,
    reference=None,
    description="rent, première moitié",
    metadata={"invoice": "2026-01"},
    partition=7,
    sequence=11,
)

RESULT: Final = published_records.Result(
    partition=7,
    offset=39,
    outcome="posted",
    id="credit-1",
    transaction_id=ids.transaction_id("w1", "credit-1"),
    kind="credit",
    entries=JOURNAL["posted"].entries,
    sequence=3,
    time_ms=TIME_MS,
)

DEAD_LETTER: Final = published_records.DeadLetter(
    partition=7,
    offset=41,
    reason=Reason.MALFORMED,
    detail="invalid JSON near character 10",
    digest=_BODY_HASH,
    size=10,
    head="eyJpZCI6ICJ4",
    id="x",
)

STATE: Final[dict[str, Struct]] = {
    "account": state.AccountState(
        type="wallet",
        currency="NGN",
        status="open",
        owner="user-1",
        min_balance=0,
        balance=1_000_000,
        held=60_000,
        version=1,
        metadata={"tier": "basic"},
    ),
    "system_account": state.SystemAccountState(balance="1000000", version=1),
    "transaction": state.TransactionState(
        body_hash=bytes.fromhex(_BODY_HASH),
        status="pending",
        kind="transfer",
        account="w1",
        currency="NGN",
        entries=_ENTRIES,
        fee=1_875,
        commission_bps=150,
        reversal=_REVERSAL_ID,
        command=COMMANDS["transfer"],
        pending=_PENDING,
    ),
    "hold": state.HoldState(
        account="w1",
        currency="NGN",
        amount=60_000,
        expires_at_ms=TIME_MS + _DAY_MS,
        status="open",
    ),
    "prepared": state.PreparedTransaction(
        coordinator=7, kind="transfer", currency="NGN", account="w1", entries=(_RECEIVER,)
    ),
    "due": state.Due(what="hold"),
    "position": state.PartitionPosition(
        partition=state.PartitionState(
            partition=7,
            partitions=8,
            ledger_id="streamledger",
            sequence=16,
            time_ms=TIME_MS,
            settings_version=1,
            settings=_SETTINGS,
            pending=1,
            sent=(0, 0, 2, 0, 0, 0, 0, 0),
            seen=(0, 0, 1, 0, 0, 0, 0, 0),
        ),
        commands=state.InputPosition(
            next_offset=44, last_offset=43, last_digest=bytes.fromhex(_BODY_HASH)
        ),
        coordination=state.InputPosition(
            next_offset=12, last_offset=11, last_digest=bytes.fromhex(_BODY_HASH)
        ),
        last_hash=_BODY_HASH,
        incarnation=bytes.fromhex(_BODY_HASH),
    ),
}
