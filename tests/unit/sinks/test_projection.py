"""A batch folds to rows: each account, hold and transaction once, as it is at the end."""

import pytest

from sinks.journal_chain import JournalChain, ReadJournalRecord, beginning
from sinks.postgres import inserts, updates
from sinks.postgres.projection import BrokenRecord, Rows
from tests.testkit.builders import account_id, transaction
from tests.testkit.stories import LEDGER_ID, Stage, play


def rows_of(stage: Stage, partition: int = 0, start: int = 0) -> Rows:
    """Of what the partition's journal has from there on."""
    chain = JournalChain(LEDGER_ID, partition, beginning(LEDGER_ID, partition))
    rows = Rows(partition)
    for offset, value in enumerate(stage.places[partition].journal):
        record = chain.follow(ReadJournalRecord(offset, value))
        if offset >= start:
            rows.add(record)
    return rows


def length(stage: Stage, partition: int = 0) -> int:
    return len(stage.places[partition].journal)


def test_an_account_opened_and_used_is_one_row() -> None:
    rows = rows_of(play("a=100; debit a 30 key=k; freeze a"))
    id = account_id("a")
    totals = rows.totals[id]
    assert (totals.balance, totals.version, totals.entries, totals.net) == (70, 2, 2, 70)
    assert rows.opened[id].account.status == "frozen"
    assert rows.changed == {} and len(rows.entries[id]) == 2
    assert set(inserts.rows_by_table([rows])) == {
        "accounts",
        "entries",
        "system_entries",
        "transactions",
        "commands",
    }


def test_entries_are_copied_in_the_order_of_their_key() -> None:
    rows = rows_of(play("b=1; a=2; credit b 3; credit a 4; credit b 5"))
    first, second = sorted(map(account_id, "ab"))
    copied = list(inserts.rows_by_table([rows])["entries"])
    assert copied == [*rows.entries[first], *rows.entries[second]]
    versions = [int.from_bytes(line[6:14], "big") for line in copied]
    counts = [len(rows.entries[first]), len(rows.entries[second])]
    assert versions == [version for count in counts for version in range(1, count + 1)]
    assert sorted(counts) == [2, 3]


def test_an_account_of_before_is_changed_by_what_the_batch_adds() -> None:
    stage = play("a=100")
    start = length(stage)
    rows = rows_of(stage.play("debit a 30 key=k; credit a 5 key=l; freeze a"), start=start)
    totals = rows.totals[account_id("a")]
    assert (totals.balance, totals.version, totals.entries, totals.net) == (75, 3, 2, -25)
    assert rows.opened == {}
    assert [account.status for account in rows.changed.values()] == ["frozen"]


def test_metadata_is_as_the_batch_leaves_it() -> None:
    stage = play("open a wallet NGN meta=b:c; credit a 5; change a meta=b:d,name:Ada")
    id = account_id("a")
    assert rows_of(stage).opened[id].account.metadata == {"b": "d", "name": "Ada"}
    start = length(stage)
    stage.play('change a meta=b:,name:"; freeze a; change a meta=x:y limit=-5')
    stage.play(
        "open b wallet NGN; change b; limit b -1",
    )
    rows = rows_of(stage, start=start)
    changed = rows.changed[id]
    assert (changed.metadata, changed.status, changed.min_balance) == (
        {"name": '"', "x": "y"},
        "frozen",
        -5,
    )
    (update,) = [each for each in updates.row_updates(rows) if each.ids == [id]]
    assert update.parameters["metadata"] == ['{"name":"\\"","x":"y"}']


def test_a_hold_placed_and_captured_is_one_row() -> None:
    rows = rows_of(play("a=100; b=0; hold a 50 key=h; capture a h 20 to=b key=c"))
    (row,) = rows.holds.values()
    assert (row.hold.status, row.hold.captured, row.placed_ms is None) == ("captured", 20, False)
    captured = rows.transactions[transaction("a", "c")]
    assert (captured.amount, captured.counterparty) == (20, account_id("b"))
    assert captured.command.hold_id == transaction("a", "h")


def test_a_hold_of_before_is_changed() -> None:
    stage = play("a=100; hold a 50 key=h")
    start = length(stage)
    (row,) = rows_of(stage.play("void a h key=v"), start=start).holds.values()
    assert (row.hold.status, row.placed_ms) == ("voided", None)


def test_a_transaction_decided_in_the_batch_is_one_row() -> None:
    stage = play("a=100; b1=0; transfer a b1 20 key=t | pending")
    pending = rows_of(stage).transactions[transaction("a", "t")]
    assert (pending.status, pending.decided_sequence, pending.amount) == ("pending", None, 20)
    rows = rows_of(stage.play("all"))
    row = rows.transactions[transaction("a", "t")]
    assert (row.status, row.decided_sequence is None) == ("posted", False)
    assert rows.decided == []
    assert rows.commands[row.record.source.offset].outcome == "posted"


def test_a_transaction_of_before_is_decided() -> None:
    stage = play("a=100; b1=0; transfer a b1 20 key=t | pending")
    start = length(stage)
    rows = rows_of(stage.play("all"), start=start)
    (decided,) = rows.decided
    assert (decided.id, decided.status) == (transaction("a", "t"), "posted")
    assert rows.transactions == {} and rows.commands == {}


def test_the_other_partitions_rows_are_its_own_entries() -> None:
    rows = rows_of(play("a=100; b1=0; transfer a b1 20 key=t | pending; all"), 1)
    assert rows.totals[account_id("b1")].balance == 20
    assert transaction("a", "t") not in rows.transactions
    assert (len(rows.entries[account_id("b1")]), len(rows.system_entries)) == (1, 1)


def test_a_reversal_marks_its_original() -> None:
    stage = play("a=100; credit a 5 key=k")
    rows = rows_of(stage.play("reverse a k key=r"))
    original = rows.transactions[transaction("a", "k")]
    assert original.reversed_by == transaction("a", "r")
    assert rows.transactions[transaction("a", "r")].amount == 5
    assert rows.reversed == []
    later = rows_of(stage, start=length(stage) - 1)
    assert later.reversed == [(transaction("a", "k"), transaction("a", "r"))]


@pytest.mark.parametrize(
    ("command", "amount", "counterparty"),
    [
        ("credit a 5 key=k", 5, None),
        ("transfer a b 5 key=k", 5, "b"),
        ("post debit a 5 credit b 5 key=k", 5, "b"),
        ("post debit a 5 debit b 2 credit c 7 key=k", 7, None),
        ("post debit a 5 credit fees 5 key=k", 5, None),
        ("hold a 5 key=k", 5, None),
        ("freeze a key=k", None, None),
    ],
)
def test_amount_and_counterparty(
    command: str, amount: int | None, counterparty: str | None
) -> None:
    rows = rows_of(play(f"a=100 b=100 c=100; {command}"))
    account = min(account_id(name) for name in "abc") if "post" in command else account_id("a")
    found = [row for row in rows.transactions.values() if row.command.kind in command]
    row = found[-1]
    assert row.amount == amount
    parties = {row.command.account, row.counterparty}
    if counterparty is None:
        assert row.counterparty is None
    else:
        assert parties == {account_id("a"), account_id(counterparty)}
    assert row.command.account in (account, account_id("a"), account_id("b"))


def test_a_second_own_step_of_a_command_is_refused() -> None:
    stage = play("a=0; credit a 5 key=k")
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    every = [
        chain.follow(ReadJournalRecord(n, value)) for n, value in enumerate(stage.places[0].journal)
    ]
    rows = Rows(0)
    rows.add(every[-1])
    with pytest.raises(BrokenRecord, match="second outcome"):
        rows.add(every[-1])
