"""What verify must find: for each comparison one corruption that only that comparison finds.

The rules decide small ledgers. If a test breaks the rules, all copies agree with a wrong
journal. Other tests corrupt records in the topics.
"""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from processor.rules import (
    accounts,
    checks,
    coordinate,
    credit_debit,
    decide,
    engine,
    expire,
    holds,
    journal_header,
    participate,
    plans,
)
from processor.rules import state_view as rules_state
from processor.rules.decision import Decision, DecisionInput, Plan
from processor.rules.postings import DecisionPostings
from processor.rules.state_view import MemoryState
from schemas import coordination, state, state_keys
from schemas.coordination import CoordinatedEntry
from schemas.journal import JournalRecord
from schemas.ledger_parameters import LedgerParameters
from schemas.state import PartitionPosition
from schemas.topics import Names
from sinks.verify.report import VerifyReport
from tests.testkit import histories, memory_topics, recorded_topics
from tests.testkit.histories import Kept, Script
from tests.testkit.memory_topics import DAY_MS, Topics

Patch = pytest.MonkeyPatch
TIMEOUT_MS = LedgerParameters().participant_timeout_ms


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: Patch) -> None:
    memory_topics.install(monkeypatch)


def topics_of(history: list[Kept]) -> Topics:
    topics = Topics()
    producer: Any = topics
    recorded_topics.write_with(producer, Names(), history)
    return topics


def report_of(script: Script) -> VerifyReport:
    history = script.history()
    return memory_topics.verified(topics_of(history), len(history))


def expect_only(report: VerifyReport, copy: str, words: str, count: int = 1) -> None:
    """Expects these differences and no others."""
    assert report.difference_counts == {copy: count}, report.text()
    assert words in report.text(), report.text()


# A whole ledger


def everything(script: Script) -> None:
    """All kinds of commands and messages."""
    ada, bob = script.open(0), script.open(0, 1, owner="bob")
    cem, dan = script.open(1, owner="cem"), script.open(1, 1)
    shop = script.open(0, 2, owner="cem")
    paid = script.send(kind="transfer", account=ada, to=bob, amount=500)
    script.send(kind="transfer", account=shop, to=cem, amount=700)
    sent = script.send(kind="transfer", account=ada, to=dan, amount=900)
    script.settle()
    script.send(kind="reverse", account=ada, transaction_id=paid)
    script.send(kind="reverse", account=ada, transaction_id=sent)
    for eve in (script.open(2), script.account(2, 9)):
        entries = [
            {"account": cem, "direction": "debit", "amount": 30},
            {"account": eve, "direction": "credit", "amount": 20},
            {"account": ada, "direction": "credit", "amount": 10},
        ]
        script.send(kind="post", account=min(ada, eve, cem), currency="NGN", entries=entries)
        script.settle()
    for to in (None, bob, cem):
        hold = script.send(kind="hold", account=ada, amount=1_000)
        capture = {} if to is None else {"to": to}
        script.send(kind="capture", account=ada, hold_id=hold, amount=400, **capture)
    script.send(kind="void", account=ada, hold_id=script.send(kind="hold", account=ada, amount=5))
    script.send(kind="hold", account=bob, amount=1_000)
    script.send(kind="transfer", account=bob, to=script.account(1, 9), amount=5)
    script.settle()
    again = {"kind": "debit", "account": dan, "amount": 50, "idempotency_key": "once"}
    script.send(**again)
    script.send(**again)
    script.send(**{**again, "amount": 51})
    # A user's command has a key space of its own.
    for amount in (50, 50, 51):
        script.send(**{**again, "amount": amount, "wallets_only": True})
    script.send(kind="transfer", account=ada, to=cem, amount=40, wallets_only=True)
    script.settle()
    script.send(b"x" * 300, kind="debit", account=dan, amount=1)
    for kind in ("freeze", "unfreeze", "set_limit", "close"):
        script.send(kind=kind, account=dan, **({"min_balance": -5} if kind == "set_limit" else {}))
    script.send(kind="change_account", account=dan, metadata={"name": "Dan"})
    script.pass_time(30 * DAY_MS)


@pytest.mark.parametrize("against_rules", [False, True])
def test_a_whole_ledger_agrees(against_rules: bool) -> None:
    script = Script(3)
    everything(script)
    report = memory_topics.verified(topics_of(script.history()), 3, against_rules=against_rules)
    assert report.agree, report.text()
    messages = sum(len(partition.messages) for partition in script.history())
    assert f", {messages} messages, " in report.text()
    steps = {record.step for partition in script.history() for record in records_of(partition)}
    assert steps > {
        "pending",
        "prepared",
        "declined",
        "committed",
        "aborted",
        "expired",
        "answered",
    }
    assert steps > {"posted", "rejected", "refused", "replayed", "ticked", "configured"}


def records_of(partition: Kept) -> list[JournalRecord]:
    return [msgspec.json.decode(value, type=JournalRecord) for _, value in partition.journal]


# Rules that are wrong: the copies agree, and the journal is not what its commands call for


def transfer(script: Script) -> None:
    script.open(1, 1)
    ada, cem = script.open(0), script.open(1)
    script.send(kind="transfer", account=ada, to=cem, amount=900)
    script.settle()


def local_transfer(script: Script) -> None:
    ada, bob = script.open(0), script.open(0, 1)
    script.send(kind="transfer", account=ada, to=bob, amount=900)


def posts_elsewhere(number: int) -> type[DecisionPostings]:
    """The net amount is right, the account is not."""

    class Elsewhere(DecisionPostings):
        def post_all(self, entries: tuple[CoordinatedEntry, ...]) -> None:
            other = Script().account(number, 1)
            first = next(each for each in entries if "system" not in each.account)
            super().post_all(tuple(replace(e, account=other) if e == first else e for e in entries))

    return Elsewhere


def participant_posts_elsewhere(patch: Patch, script: Script) -> None:
    patch.setattr(participate, "DecisionPostings", posts_elsewhere(1))
    transfer(script)


def coordinator_posts_elsewhere(patch: Patch, script: Script) -> None:
    script.open(0, 1)
    patch.setattr(coordinate, "DecisionPostings", posts_elsewhere(0))
    transfer(script)


def coordinator_asks_for_elsewhere(patch: Patch, script: Script) -> None:
    """What it keeps as planned is right; what it sends is not, and the participant obeys."""
    begin: Any = coordinate.begin

    def wrong(*arguments: Any) -> Decision:
        others = {
            partition: [replace(each, account=script.account(1, 1)) for each in entries]
            for partition, entries in arguments[4].items()
        }
        decided: Decision = begin(*arguments[:4], others, *arguments[5:])
        return decided

    patch.setattr(coordinate, "begin", wrong)
    transfer(script)


def prepare_allows_every_account(patch: Patch, script: Script) -> None:
    """The command may use wallets alone."""
    right: Any = coordination.Prepare

    def wrong(**fields: Any) -> Any:
        return right(**{**fields, "wallets_only": False})

    ada, cem = script.open(0), script.open(1)
    # Only what is sent is wrong: the decoder and the rest of the rules keep the class.
    patch.setattr(
        coordinate, "coordination", SimpleNamespace(**{**vars(coordination), "Prepare": wrong})
    )
    script.send(kind="transfer", account=ada, to=cem, amount=900, wallets_only=True)
    script.settle()


def commit_is_ignored(patch: Patch, script: Script) -> None:
    def ignore(
        view: Any, input: DecisionInput, message: coordination.Commit, time_ms: int
    ) -> Decision:
        head = journal_header.for_input(view, input, time_ms)
        return Decision(
            replace(head, step="ignored", message=message, transaction_id=message.transaction_id)
        )

    patch.setattr(participate, "commit", ignore)
    transfer(script)


def commission_is_waived(patch: Patch, script: Script) -> None:
    patch.setattr(participate, "_same_owner", lambda view, message: True)
    transfer(script)


def answer_is_forgotten(patch: Patch, script: Script) -> None:
    """The participant refuses, and the coordinator posts."""
    patch.setattr(coordinate, "_reason", lambda pending: None)
    ada = script.open(0)
    script.send(kind="transfer", account=ada, to=script.account(1), amount=900)
    script.settle()


def commit_says_otherwise(patch: Patch, script: Script) -> None:
    commit = coordinate._commit

    def wrong(*arguments: Any) -> coordination.Commit:
        return replace(commit(*arguments), reference="another")

    patch.setattr(coordinate, "_commit", wrong)
    transfer(script)


def credit_of_another_amount(patch: Patch, script: Script) -> None:
    move = credit_debit.move

    def wrong(decision_input: Any, command: Any, *arguments: Any) -> Decision:
        decided = move(decision_input, replace(command, amount=command.amount + 1), *arguments)
        record = replace(decided.record, command=command)
        return Decision(record, transactions=decided.transactions)

    patch.setattr(credit_debit, "move", wrong)
    script.open(0)


def wrong_commission(patch: Patch, script: Script) -> None:
    patch.setattr(plans, "fee_of", lambda amount, bps: 7)
    local_transfer(script)


def wrong_receiver(patch: Patch, script: Script) -> None:
    entries_of = plans.transfer_entries

    def wrong(*arguments: Any) -> tuple[CoordinatedEntry, ...]:
        sender, receiver, *rest = entries_of(*arguments)
        return (sender, replace(receiver, account=script.account(0, 1)), *rest)

    script.open(0, 2)
    patch.setattr(plans, "transfer_entries", wrong)
    ada, _ = script.open(0), script.open(0, 1)
    script.send(kind="transfer", account=ada, to=script.account(0, 2), amount=900)


def wrong_reversal(patch: Patch, script: Script) -> None:
    reverse = plans.reverse

    def wrong(*arguments: Any) -> Plan | None:
        plan = reverse(*arguments)
        assert plan is not None
        halved = tuple(replace(each, amount=each.amount // 2) for each in plan.entries)
        return Plan(halved, plan.currency)

    patch.setattr(plans, "reverse", wrong)
    ada = script.open(0)
    paid = script.send(kind="credit", account=ada, amount=900)
    script.send(kind="reverse", account=ada, transaction_id=paid)


def wrong_capture(patch: Patch, script: Script) -> None:
    capture = plans.capture

    def wrong(*arguments: Any) -> Plan | None:
        plan = capture(*arguments)
        assert plan is not None
        less = tuple(replace(each, amount=each.amount - 1) for each in plan.entries)
        return Plan(less, plan.currency, hold=plan.hold)

    patch.setattr(plans, "capture", wrong)
    ada = script.open(0)
    hold = script.send(kind="hold", account=ada, amount=900)
    script.send(kind="capture", account=ada, hold_id=hold)


def hold_for_longer(patch: Patch, script: Script) -> None:
    place = holds.place

    def wrong(*arguments: Any) -> Decision:
        decided = place(*arguments)
        hold = decided.record.hold
        assert hold is not None
        longer = replace(hold, expires_at_ms=hold.expires_at_ms + 1)
        return Decision(replace(decided.record, hold=longer))

    patch.setattr(holds, "place", wrong)
    script.send(kind="hold", account=script.open(0), amount=900)


def replay_of_another_body(patch: Patch, script: Script) -> None:
    right = decide.decide

    def wrong(view: Any, input: DecisionInput, message: Any, time_ms: int) -> Decision:
        decided = right(view, input, message, time_ms)
        if decided.record.step != "refused":
            return decided
        return Decision(
            replace(
                decided.record,
                step="replayed",
                reason=None,
                first_status="posted",
                transaction_id=script_id(input),
                body_hash=input.body_hash.hex(),
            )
        )

    patch.setattr(decide, "decide", wrong)
    ada = script.open(0)
    script.send(kind="debit", account=ada, amount=50, idempotency_key="once")
    script.send(kind="debit", account=ada, amount=51, idempotency_key="once")


def script_id(input: DecisionInput) -> str:
    return str(state_keys.transaction_id_in(input.transaction_key))


def replay_with_another_reason(patch: Patch, script: Script) -> None:
    right = decide.decide

    def wrong(*arguments: Any) -> Decision:
        decided = right(*arguments)
        if decided.record.step != "replayed":
            return decided
        return Decision(replace(decided.record, reason="account_frozen"))

    patch.setattr(decide, "decide", wrong)
    ada = script.open(0)
    for _ in range(2):
        script.send(kind="debit", account=ada, amount=10**9, idempotency_key="once")


def refused_as_used_again(patch: Patch, script: Script) -> None:
    """The very same command, which is a replay."""
    right = decide.decide

    def wrong(*arguments: Any) -> Decision:
        decided = right(*arguments)
        record = decided.record
        if record.step != "replayed":
            return decided
        refused = replace(
            record,
            step="refused",
            reason="idempotency_key_reused",
            first_status=None,
            transaction_id=None,
            body_hash=None,
        )
        return Decision(refused)

    patch.setattr(decide, "decide", wrong)
    ada = script.open(0)
    for _ in range(2):
        script.send(kind="debit", account=ada, amount=5, idempotency_key="once")


def due(shift_ms: int) -> Callable[[Patch, Script], None]:
    """Holds and deadlines come due too early, or too late."""

    def wrong(patch: Patch, script: Script) -> None:
        right = MemoryState.due

        def shifted(view: MemoryState, time_ms: int, most: int) -> list[bytes]:
            return right(view, time_ms + shift_ms, most)

        patch.setattr(MemoryState, "due", shifted)
        script.send(
            kind="hold", account=script.open(0), amount=9, expires_at_ms=script.now_ms + 10_000
        )
        script.now_ms += 10_000 - max(shift_ms, 0) // 2
        script.tick(0)
        script.settle()
        script.pass_time(20_000)

    return wrong


def deadline_that_has_not_come(patch: Patch, script: Script) -> None:
    right = MemoryState.due
    patch.setattr(
        MemoryState, "due", lambda view, time_ms, most: right(view, time_ms + 2_000, most)
    )
    ada, cem = script.open(0), script.open(1)
    script.send(kind="transfer", account=ada, to=cem, amount=900)
    script.now_ms += TIMEOUT_MS - 1_000
    script.tick(0)
    script.deliver(0)
    script.settle()


def expiry_of_another_time(patch: Patch, script: Script) -> None:
    """Time goes back to that of the input, one millisecond later."""
    right = expire.expire

    def wrong(view: Any, key: bytes, time_ms: int) -> Decision:
        decided = right(view, key, time_ms)
        return Decision(replace(decided.record, time_ms=time_ms - 1))

    patch.setattr(expire, "expire", wrong)
    script.send(kind="hold", account=script.open(0), amount=9, expires_at_ms=script.now_ms + 10_000)
    script.pass_time(10_001)


def other_settings(patch: Patch, script: Script) -> None:
    decided_by = engine._decide

    def wrong(view: rules_state.StateView, input: DecisionInput, time_ms: int) -> Decision:
        decided = decided_by(view, input, time_ms)
        if decided.record.settings is None:
            return decided
        settings = replace(decided.record.settings, commission_bps=9)
        return Decision(replace(decided.record, settings=settings))

    patch.setattr(engine, "_decide", wrong)
    script.configure(0, LedgerParameters(commission_bps=8))
    script.settle()


def account_is_opened_by_a_credit(patch: Patch, script: Script) -> None:
    move = credit_debit.move

    def wrong(decision_input: Any, command: Any, account: Any, *arguments: Any) -> Decision:
        decided = move(decision_input, command, account, *arguments)
        change = accounts._changed(decision_input, account).record.account
        return Decision(replace(decided.record, account=change), transactions=decided.transactions)

    patch.setattr(credit_debit, "move", wrong)
    script.open(0)


def more_than_there_is(patch: Patch, script: Script) -> None:
    patch.setattr(checks, "funds", lambda *arguments: None)
    script.send(kind="debit", account=script.open(0), amount=1_000_001)


def more_than_fits(patch: Patch, script: Script) -> None:
    patch.setattr(checks, "funds", lambda *arguments: None)
    script.send(kind="credit", account=script.open(0), amount=2**53 - 1)


def closed_with_a_balance(patch: Patch, script: Script) -> None:
    changed = accounts._changed
    patch.setattr(
        accounts,
        "freeze",
        lambda decision_input, command, account: changed(
            decision_input, replace(account, status="closed")
        ),
    )
    patch.setattr(
        accounts,
        "close",
        lambda decision_input, command, account: changed(
            decision_input, replace(account, status="closed")
        ),
    )
    script.send(kind="close", account=script.open(0))


def changed_when_closed(patch: Patch, script: Script) -> None:
    changed = accounts._changed
    patch.setattr(
        accounts,
        "set_limit",
        lambda decision_input, command, account, settings: changed(
            decision_input, replace(account, min_balance=command.min_balance)
        ),
    )
    account = script.account(0)
    script.send(kind="open_account", account=account, type="wallet", currency="NGN")
    script.send(kind="close", account=account)
    script.send(kind="set_limit", account=account, min_balance=-5)


def two_currencies(patch: Patch, script: Script) -> None:
    patch.setattr(checks, "standing", lambda *arguments: None)
    ada, bob = script.open(0), script.open(0, 1, currency="USD")
    patch.setattr(plans, "fee_of", lambda amount, bps: 0)
    script.configure(0, LedgerParameters(commission_bps=0))
    script.settle()
    script.send(kind="transfer", account=ada, to=bob, amount=900)


def hold_that_reserves_less(patch: Patch, script: Script) -> None:
    class Less(DecisionPostings):
        def reserve(self, id: str, direction: Any, amount: int) -> None:
            super().reserve(id, direction, amount - 1)

    patch.setattr(holds, "DecisionPostings", Less)
    script.send(kind="hold", account=script.open(0), amount=900)


def owned_twice(patch: Patch, script: Script) -> None:
    """A repeated command is decided once more."""
    patch.setattr(rules_state, "transaction_at", lambda view, key: None)
    ada = script.open(0)
    for _ in range(2):
        script.send(kind="debit", account=ada, amount=5, idempotency_key="once")


WRONG: dict[str, tuple[Callable[[Patch, Script], None], str, str, int]] = {
    "a participant posts to another account": (
        participant_posts_elsewhere,
        "journal",
        "but its committed calls for",
        1,
    ),
    "a coordinator posts to another account": (
        coordinator_posts_elsewhere,
        "journal",
        "but its posted calls for",
        1,
    ),
    "a coordinator asks for another account": (
        coordinator_asks_for_elsewhere,
        "coordination",
        "message 1 from partition 0 to 1 was sent as prepare and read with different contents",
        1,
    ),
    "a prepare that allows every account": (
        prepare_allows_every_account,
        "coordination",
        "message 1 from partition 0 to 1 was sent as prepare and read with different contents",
        1,
    ),
    "a commit is ignored": (commit_is_ignored, "journal", "ignores the decision on a prepared", 0),
    "a commission is waived": (
        commission_is_waived,
        "coordination",
        "message 1 from partition 1 to 0 was sent as prepared and read with different contents",
        1,
    ),
    "a refusal is forgotten": (
        answer_is_forgotten,
        "journal",
        "is posted, but not all participants have prepared it",
        0,
    ),
    "a commit says something else": (
        commit_says_otherwise,
        "coordination",
        "message 2 from partition 0 to 1 was sent as commit",
        1,
    ),
    "a credit of another amount": (
        credit_of_another_amount,
        "journal",
        "entries: system:funding:NGN:0 debit 1000001",
        0,
    ),
    "another commission": (wrong_commission, "journal", "fee: 7, but its command calls", 0),
    "another receiver": (wrong_receiver, "journal", "but its command calls for", 1),
    "a reversal of half the amount": (wrong_reversal, "journal", "are not the reversed", 1),
    "a capture of less": (wrong_capture, "journal", "entries: account-", 0),
    "a hold that lasts longer": (hold_for_longer, "journal", "hold: HoldChange(", 1),
    "a replay of another body": (replay_of_another_body, "journal", "body hash is", 1),
    "a replay with another reason": (
        replay_with_another_reason,
        "journal",
        "reason of the first outcome is account_frozen",
        1,
    ),
    "a replay that is refused": (
        refused_as_used_again,
        "journal",
        "refuses an idempotency key as reused, but no other command used it",
        1,
    ),
    "a hold that expires early": (due(2_000), "journal", "expires at", 1),
    "a hold that expires late": (due(-2_000), "journal", "but did not expire", 1),
    "a deadline that has not come": (
        deadline_that_has_not_come,
        "journal",
        "times out at",
        1,
    ),
    "an expiry of another time": (
        expiry_of_another_time,
        "journal",
        "but an expiry before it has",
        1,
    ),
    "a debit below the limit": (more_than_there_is, "journal", "below the limit of 0", 1),
    "a balance out of bounds": (more_than_fits, "journal", "is out of bounds", 1),
    "an account closed with a balance": (
        closed_with_a_balance,
        "journal",
        "closes an account that is not empty",
        1,
    ),
    "a closed account that is changed": (
        changed_when_closed,
        "journal",
        "changes an account that is closed",
        1,
    ),
    "two currencies": (two_currencies, "journal", "entries in several currencies", 0),
    "a hold that reserves less": (hold_that_reserves_less, "journal", "reserved: account-", 0),
    "a command that is decided twice": (
        owned_twice,
        "journal",
        "owns a transaction id that another command already owns",
        0,
    ),
    "other settings": (other_settings, "journal", "settings is", 1),
    "a credit that changes its account": (
        account_is_opened_by_a_credit,
        "journal",
        "account: account-",
        1,
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_journal_that_is_not_what_its_commands_call_for(monkeypatch: Patch, what: str) -> None:
    """0 stands for several differences of one cause."""
    make, copy, words, count = WRONG[what]
    script = Script()
    with monkeypatch.context() as patch:
        make(patch, script)
    report = report_of(script)
    if count:
        expect_only(report, copy, words, count)
    assert copy in report.difference_counts and words in report.text(), report.text()


# Messages between partitions


def in_flight(delivered: int) -> Script:
    """A transfer of which so many messages were read: prepare, prepared, commit."""
    script = Script()
    ada, cem = script.open(0), script.open(1)
    script.send(kind="transfer", account=ada, to=cem, amount=900)
    for number in (1, 0, 1)[:delivered]:
        script.deliver(number)
    return script


@pytest.mark.parametrize("delivered", [0, 1, 2, 3])
def test_messages_in_flight_are_no_difference(delivered: int) -> None:
    report = report_of(in_flight(delivered))
    assert report.agree, report.text()
    (currency,) = report.currencies
    assert currency.transit == currency.under_way == (-900 if delivered == 2 else 0)


@pytest.mark.parametrize(
    ("delivered", "receiver", "kind"), [(0, 1, "prepare"), (1, 0, "prepared"), (2, 1, "commit")]
)
def test_a_message_that_is_nowhere(delivered: int, receiver: int, kind: str) -> None:
    topics = topics_of(in_flight(delivered).history())
    assert topics.records["coordination", receiver].pop().offset >= 0
    report = memory_topics.verified(topics, 2)
    assert not report.agree
    found = [each.what for each in report.differences if each.copy == "coordination"]
    assert len(found) == 1 and f", {kind}" in found[0], report.text()
    assert "was sent, but is neither in the topic nor in the receiver's journal" in found[0]
    # No message in flight explains what transit holds.
    books = [each.what for each in report.differences if each.copy == "books"]
    assert books == (
        ["NGN: transit is -900 over all partitions, but the messages in flight carry 0"]
        if kind == "commit"
        else []
    )


def test_a_message_that_was_deleted_before_it_was_read() -> None:
    topics = topics_of(in_flight(2).history())
    topics.delete_until("coordination", 1, len(topics.records["coordination", 1]))
    report = memory_topics.verified(topics, 2)
    assert "message 2 of partition 0, commit" in report.text()


def test_messages_that_were_read_and_deleted_are_no_difference() -> None:
    topics = topics_of(in_flight(2).history())
    topics.delete_until("coordination", 1, len(topics.records["coordination", 1]) - 1)
    report = memory_topics.verified(topics, 2)
    assert report.agree, report.text()


def test_a_message_that_lies_changed_in_the_topic() -> None:
    topics = topics_of(in_flight(0).history())
    records = topics.records["coordination", 1]
    value = (records[-1].value or b"").replace(b'"credit",900', b'"credit",901')
    records[-1] = replace(records[-1], value=value)
    expect_only(
        memory_topics.verified(topics, 2), "coordination", "is in the topic with different contents"
    )


def test_a_message_that_nobody_sent() -> None:
    topics = topics_of(in_flight(3).history())
    commit = coordination.Commit(source=0, number=3, transaction_id=Script().account(0))
    value = msgspec.json.encode(commit).replace(b"account-", b"0" * 8)
    id = b"00000000-0000-0000-0000-000000000000"
    start = value.index(b'"transaction_id":"') + len(b'"transaction_id":"')
    value = value[:start] + id + value[value.index(b'"', start) :]
    topics.produce("coordination", value, None, 1)
    expect_only(
        memory_topics.verified(topics, 2),
        "coordination",
        "message 3 of partition 0 is in the topic, but",
    )


def test_a_message_that_was_read_and_never_sent() -> None:
    script = Script()
    cem = script.open(1)
    prepare = coordination.Prepare(
        source=0,
        number=1,
        transaction_id="00000000-0000-0000-0000-000000000000",
        kind="transfer",
        currency="NGN",
        account=script.account(0),
        entries=(CoordinatedEntry(1, cem, "credit", 900),),
    )
    script.partitions[1].messages.append(None, msgspec.json.encode(prepare), script.now_ms)
    script.settle()
    expect_only(
        report_of(script), "coordination", "message 1 of partition 0 was read, but was never sent"
    )


def test_each_message_that_was_read_with_other_contents(monkeypatch: Patch) -> None:
    """The first difference between two partitions hides none of the later ones."""
    script = Script()
    with monkeypatch.context() as patch:
        commit_says_otherwise(patch, script)
        transfer(script)
    expect_only(report_of(script), "coordination", "message 4 from partition 0 to 1 was sent as", 2)


def unread_message(value: bytes) -> VerifyReport:
    """A ledger in which partition 1 has one more message to read."""
    topics = topics_of(in_flight(3).history())
    topics.produce("coordination", value, None, 1)
    return memory_topics.verified(topics, 2)


PROCESSOR_STOPS_AT: dict[str, tuple[bytes, str]] = {
    "an unknown kind": (
        b'{"message":"escrow","source":0,"number":3}',
        "cannot be decoded: Invalid value 'escrow' - at `$.message`",
    ),
    "an unknown field": (
        b'{"message":"tick","every_ms":5}',
        "cannot be decoded: Object contains unknown field `every_ms`",
    ),
    "no kind": (b'{"source":0,"number":3}', "cannot be decoded: "),
    "an unknown reason": (
        b'{"message":"refused","source":0,"number":3,"reason":"moon_phase","index":0,'
        b'"transaction_id":"00000000-0000-4000-8000-000000000000"}',
        "cannot be decoded: unknown reason 'moon_phase'",
    ),
    "an unknown rules version": (
        msgspec.json.encode(coordination.Configure(settings=LedgerParameters(rules_version=99))),
        "sets rules version 99",
    ),
    "an unknown format level": (
        msgspec.json.encode(coordination.Configure(settings=LedgerParameters(format_level=99))),
        "sets format level 99",
    ),
}


@pytest.mark.parametrize("what", PROCESSOR_STOPS_AT)
def test_an_unread_message_at_which_the_processor_stops(what: str) -> None:
    value, words = PROCESSOR_STOPS_AT[what]
    report = unread_message(value)
    expect_only(report, "coordination", words)
    (difference,) = report.differences
    assert difference.partition == 1 and "the processor stops there" in difference.what


def test_a_sent_message_that_this_version_cannot_decode_is_reported_once() -> None:
    topics = topics_of(in_flight(0).history())
    prepare = topics.records["coordination", 1][-1]
    value = (prepare.value or b"").replace(b'"prepare"', b'"prepare_all"')
    topics.records["coordination", 1][-1] = replace(prepare, value=value)
    expect_only(
        memory_topics.verified(topics, 2), "coordination", "cannot be decoded: Invalid value"
    )


@pytest.mark.parametrize("value", [b"", b"no JSON", b"[]", b'{"greeting":"hello"}', b"[" * 5_000])
def test_bytes_that_are_no_message_are_no_difference(value: bytes) -> None:
    """The processor ignores them."""
    report = unread_message(value)
    assert report.agree, report.text()


# Beside a live system


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_beside_a_busy_ledger_nothing_is_missing(ahead: int) -> None:
    """The journal grows while it is verified, and what it answers with it; the state that was read
    in between may be ahead of the journal's end."""
    script = Script()
    ada, cem = script.open(0), script.open(1)
    for _ in range(20):
        script.send(kind="transfer", account=ada, to=cem, amount=900)
        script.settle()
    topics = topics_of(script.history())
    for number in range(2):
        # The journal is asked for before the copies, and after them.
        topics.hidden["journal", number] = [9, 2 * ahead]
        topics.hidden["commands", number] = [2 * ahead]
        topics.hidden["coordination", number] = [2 * ahead]
    report = memory_topics.verified(topics, 2)
    assert report.agree, report.text()


def test_ends_that_cut_a_transfer_in_two() -> None:
    """One partition's journal is read to an earlier end than the other's: what is missing there has
    come since."""
    script = Script()
    ada, cem = script.open(0), script.open(1)
    states = script.history()
    script.send(kind="transfer", account=ada, to=cem, amount=900)
    script.settle()
    history = script.history()
    for number in range(2):
        topics = Topics()
        producer: Any = topics
        mixed = [states[each] if each == number else history[each] for each in range(2)]
        recorded_topics.write_with(producer, Names(), history, mixed, mixed)
        later = len(history[number].journal) - len(states[number].journal)
        topics.hidden["journal", number] = [later, later]
        topics.delete_until("coordination", number, len(topics.records["coordination", number]) - 1)
        report = memory_topics.verified(topics, 2)
        assert report.agree, report.text()
        assert report.partitions[number].sequence == len(states[number].journal)


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_ledger_that_stands_in_the_middle_of_things(seed: int) -> None:
    """Messages in flight, commands that wait."""
    history = histories.in_flight(seed, 900, 3).partitions
    report = memory_topics.verified(topics_of(history), 3, against_rules=True)
    assert report.agree, report.text()
    assert [each.waiting for each in report.partitions] == [
        len(partition.waiting) for partition in history
    ]
    assert all(each.transit == each.under_way for each in report.currencies)


@pytest.mark.parametrize("seed", range(40, 48))
def test_ends_that_lie_anywhere(seed: int) -> None:
    """The journals go on while they are verified, each is read to an end of its own, and the copies
    are somewhere before that."""
    dice = random.Random(seed)
    history = histories.of_seed(seed, 600, 3, rest=False).partitions
    topics = Topics()
    producer: Any = topics
    at, ends = [], []
    for partition in history:
        steps = partition.whole_steps()
        began, copied, ended = sorted(dice.choice(steps[len(steps) // 4 :]) for _ in range(3))
        at.append(partition.until(copied))
        length = len(partition.journal)
        topics.hidden["journal", partition.number] = [length - began, length - ended]
        ends.append(ended)
    recorded_topics.write_with(producer, Names(), history, at, at)
    for partition, ended in zip(history, ends, strict=True):
        read = partition.until(ended).messages
        topics.delete_until(
            "coordination", partition.number, dice.randint(0, max(0, len(read) - 1))
        )
    report = memory_topics.verified(topics, 3)
    assert report.agree, report.text()


def test_a_command_that_is_really_missing() -> None:
    script = in_flight(3)
    topics = topics_of(script.history())
    topics.records["commands", 0].pop()
    expect_only(
        memory_topics.verified(topics, 2), "commands", "is in the journal, but not in the topic"
    )


# Log times that an operator decided


def decision(script: Script) -> coordination.LogTime:
    """On the next command."""
    offset = script.partitions[0].commands.end
    return coordination.LogTime(
        topic="commands", first=offset, last=offset, time_ms=script.now_ms - 1
    )


def decided_ahead(script: Script, message: coordination.LogTime) -> None:
    """It counts before it is read in `coordination`, where it is the last one."""
    partition, value = script.partitions[0], msgspec.json.encode(message)
    input = journal_header.input_of("operator", partition.messages.end, None, value, 0, message)
    decided = engine.apply(partition.state, input)
    script._commit(partition, [decided])
    script._keep(partition, input, decided)


def late(script: Script) -> None:
    """A command of a broker whose clock is wrong."""
    account = script.account(0)
    script.now_ms += 10**9
    script.send(kind="credit", account=account, amount=5)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_a_time_that_an_operator_decided(ahead: bool, read: bool) -> None:
    script = Script()
    script.open(0)
    message = decision(script)
    if ahead:
        decided_ahead(script, message)
    script.partitions[0].messages.append(None, msgspec.json.encode(message), script.now_ms)
    if read:
        script.settle()
    if ahead or read:
        late(script)
    report = memory_topics.verified(topics_of(script.history()), 2, against_rules=True)
    assert report.agree, report.text()


@pytest.mark.parametrize("read", ["nothing", "another"])
def test_a_decision_that_is_not_in_the_topic(read: str) -> None:
    script = Script()
    script.open(0)
    decided_ahead(script, decision(script))
    if read == "another":
        script.tick(0)
        script.settle()
    copy = "journal" if read == "another" else "coordination"
    expect_only(report_of(script), copy, "no log-time decision at offset 0 of `coordination`")


def test_a_decision_that_is_not_obeyed(monkeypatch: Patch) -> None:
    script = Script()
    script.open(0)
    script.partitions[0].messages.append(None, msgspec.json.encode(decision(script)), script.now_ms)
    script.settle()
    before = script.now_ms
    with monkeypatch.context() as patch:
        patch.setattr(engine, "log_time", lambda at, input: input.time_ms)
        late(script)
    expect_only(
        report_of(script), "commands", f"commands 2 has log time {before - 1}, in the journal"
    )


def test_a_decision_that_lets_time_pass(monkeypatch: Patch) -> None:
    timed: Any = engine._timed

    def wrong(*arguments: Any) -> Decision:
        decided = timed(*arguments)
        return Decision(replace(decided.record, time_ms=decided.record.time_ms + 1))

    script = Script()
    script.open(0)
    script.partitions[0].messages.append(None, msgspec.json.encode(decision(script)), script.now_ms)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_timed", wrong)
        script.settle()
    report = report_of(script)
    assert report.difference_counts == {"journal": 1, "coordination": 1}, report.text()
    assert "moves time from" in report.text()


# The state


def test_a_state_that_is_empty() -> None:
    topics = topics_of(in_flight(3).history())
    topics.empty("state", 1)
    report = memory_topics.verified(topics, 2)
    assert report.difference_counts == {"state": 1}, report.text()
    assert "stalled at sequence 0, 5 journal records behind" in report.text()


def test_a_state_of_earlier() -> None:
    """It lost its last transactions whole."""
    script = Script()
    script.open(0)
    before = script.history()
    script.send(kind="credit", account=script.account(0), amount=5)
    topics = Topics()
    producer: Any = topics
    recorded_topics.write_with(producer, Names(), script.history(), before)
    report = memory_topics.verified(topics, 2)
    expect_only(report, "state", "stalled at sequence 3, 1 journal records behind")


# Published topics


def with_results() -> Topics:
    return topics_of(in_flight(3).history())


def test_results_that_were_emptied() -> None:
    topics = with_results()
    topics.delete_until("results", 0, len(topics.records["results", 0]))
    expect_only(memory_topics.verified(topics, 2), "results", "is missing", 3)


def test_results_that_are_older_than_they_are_kept() -> None:
    topics = with_results()
    topics.delete_until("results", 0, 2)
    records = topics.records["journal", 0]
    now = records[-1].time_ms
    for place, record in enumerate(records):
        records[place] = replace(record, time_ms=now - 8 * DAY_MS)
    report = memory_topics.verified(topics, 2)
    assert report.agree, report.text()
    topics.retention_ms["results"] = 9 * DAY_MS
    expect_only(memory_topics.verified(topics, 2), "results", "is missing", 2)


def test_positions_of_results_that_were_emptied() -> None:
    topics = with_results()
    for number in range(2):
        topics.empty("results.positions", number)
    report = memory_topics.verified(topics, 2)
    expect_only(report, "results", "stalled at sequence 0", 2)


def test_results_and_their_positions_that_were_emptied() -> None:
    topics = with_results()
    for number in range(2):
        topics.empty("results", number)
        topics.empty("results.positions", number)
    report = memory_topics.verified(topics, 2)
    expect_only(report, "results", "stalled at sequence 0, 5 journal records behind", 2)


def test_entries_that_were_deleted_though_they_are_kept_for_good() -> None:
    topics = with_results()
    topics.delete_until("transactions", 0, 1)
    expect_only(memory_topics.verified(topics, 2), "transactions", "is missing")
    topics.retention_ms["transactions"] = DAY_MS
    records = topics.records["journal", 0]
    for place, record in enumerate(records):
        records[place] = replace(record, time_ms=record.time_ms - 2 * DAY_MS)
    report = memory_topics.verified(topics, 2)
    assert report.agree, report.text()


def test_a_key_of_any_size() -> None:
    script = Script()
    ada = script.open(0)
    script.send(b"x" * 257, kind="debit", account=ada, amount=1)
    report = report_of(script)
    assert report.agree, report.text()


def test_a_key_that_was_changed() -> None:
    script = Script()
    script.open(0)
    topics = topics_of(script.history())
    records = topics.records["commands", 0]
    records[-1] = replace(records[-1], key=b"another")
    report = memory_topics.verified(topics, 2)
    assert "commands 1 has key b'another'" in report.text()


def test_a_command_of_another_time() -> None:
    topics = topics_of(in_flight(3).history())
    records = topics.records["commands", 0]
    records[-1] = replace(records[-1], time_ms=records[-1].time_ms + 1)
    report = memory_topics.verified(topics, 2)
    # The digest of the last input is of its time, too.
    assert report.difference_counts == {"commands": 1, "state": 1}, report.text()
    assert f"commands 2 has log time {records[-1].time_ms}, in the journal" in report.text()


@pytest.mark.parametrize("field", ["id", "actor", "trace"])
def test_a_command_that_the_journal_has_otherwise(monkeypatch: Patch, field: str) -> None:
    """In a field that is not part of the body."""
    move = credit_debit.move

    def wrong(decision_input: Any, command: Any, *arguments: Any) -> Decision:
        decided = move(decision_input, command, *arguments)
        records: Any = {field: "another", "idempotency_key": command.id}
        record = replace(decided.record, command=replace(command, **records))
        return Decision(record, transactions=decided.transactions)

    script = Script()
    with monkeypatch.context() as patch:
        patch.setattr(credit_debit, "move", wrong)
        script.open(0)
    expect_only(report_of(script), "commands", "commands 1 has different contents in the journal")


POSITIONS: dict[str, tuple[Callable[[PartitionPosition], PartitionPosition], str]] = {
    "hash": (lambda at: replace(at, last_hash="0" * 64), "last hash 000"),
    "time": (lambda at: moved(at, time_ms=7), "time 7"),
    "settings": (
        lambda at: moved(at, settings=LedgerParameters(commission_bps=1)),
        "settings LedgerParameters(",
    ),
    "settings version": (lambda at: moved(at, settings_version=9), "settings version 9"),
    "pending transactions": (lambda at: moved(at, pending=3), "pending transactions 3"),
    "messages sent": (lambda at: moved(at, sent=(0, 9)), "coordination messages sent (0, 9)"),
    "messages seen": (lambda at: moved(at, seen=(0, 9)), "coordination messages seen (0, 9)"),
    "log times": (
        lambda at: moved(at, log_times=(state.LogTimeDecision("commands", 9, 9, 7),)),
        "log times (LogTimeDecision(",
    ),
    "ledger": (lambda at: moved(at, ledger_id="another"), "ledger another"),
    "digest of the last command": (
        lambda at: replace(at, commands=replace(at.commands, last_digest=bytes(16))),
        "the position in commands is",
    ),
    "next message": (
        lambda at: replace(at, coordination=replace(at.coordination, next_offset=9)),
        "the position in coordination is",
    ),
}


def moved(at: PartitionPosition, **fields: Any) -> PartitionPosition:
    return replace(at, partition=replace(at.partition, **fields))


@pytest.mark.parametrize("what", POSITIONS)
def test_a_position_of_the_state(what: str) -> None:
    change, words = POSITIONS[what]
    topics = topics_of(in_flight(3).history())
    records = topics.records["state", 0]
    position = msgspec.msgpack.decode(records[-1].value or b"", type=PartitionPosition)
    records[-1] = replace(records[-1], value=msgspec.msgpack.encode(change(position)))
    expect_only(memory_topics.verified(topics, 2), "state", words)


def test_the_hash_of_the_results() -> None:
    topics = with_results()
    records = topics.records["results.positions", 0]
    value = msgspec.json.decode(records[-1].value or b"") | {"last_hash": "0" * 64}
    records[-1] = replace(records[-1], value=msgspec.json.encode(value))
    expect_only(memory_topics.verified(topics, 2), "results", "position: last_hash is 000")


def test_entries_by_another_key_and_in_another_order() -> None:
    script = Script()
    local_transfer(script)
    topics = topics_of(script.history())
    records = topics.records["transactions", 0]
    records[0] = replace(records[0], key=b"another")
    expect_only(memory_topics.verified(topics, 2), "transactions", "key is b'another'")
    topics = topics_of(script.history())
    records = topics.records["transactions", 0]
    records[-1], records[-2] = records[-2], records[-1]
    expect_only(memory_topics.verified(topics, 2), "transactions", "version 2 of", 2)
