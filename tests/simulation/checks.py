"""What must hold after each step, and what the model must agree with. Raises `Disagreement` with
the first difference.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from processor.rules.decision import Decision, DecisionInput
from processor.rules.state_view import MemoryState
from schemas import coordination, ids, money, state, state_keys
from schemas.journal import JournalRecord
from schemas.reasons import Reason
from tests.model import ledger, values
from tests.simulation.store import Store, Written

RAISED_BY_DEBIT = ("asset", "expense")


class Disagreement(AssertionError):
    """The rules and the model, or the rules and an invariant, differ."""


def agree(
    model: ledger.Ledger,
    partition: int,
    input: DecisionInput,
    decisions: list[Decision],
    said: list[values.Said],
) -> None:
    """The journal records of one input are those that the model says, in its order."""
    where = f"partition {partition}, {input.topic} {input.offset}: {input.value[:600]!r}"
    if len(decisions) != len(said):
        steps = [decision.record.step for decision in decisions]
        raise Disagreement(f"{where}\nrules: {steps}\nmodel: {[one.step for one in said]}")
    for place, (decision, one) in enumerate(zip(decisions, said, strict=True)):
        source = input.topic if place == len(said) - 1 else "expiry"
        _same(where, "source", decision.record.source.topic, source)
        _agree_record(where, model, decision.record, one)
        _agree_coordination(where, partition, decision, one)
        _agree_transactions(where, model, decision, one)
        dead = one.step == "refused" and one.reason is not Reason.IDEMPOTENCY_KEY_REUSED
        _same(where, "dead letter", decision.dead_letter is not None, dead)
    record = decisions[-1].record
    _same(where, "offset", record.source.offset, input.offset)
    _same(where, "partition", record.partition, partition)
    _same(where, "time", record.time_ms, model.time[partition])


def _same(where: str, what: str, rules: object, model: object) -> None:
    if rules != model:
        raise Disagreement(f"{where}\n{what}: rules say {rules!r}, the model says {model!r}")


def _agree_record(
    where: str, model: ledger.Ledger, record: JournalRecord, said: values.Said
) -> None:
    rules = (record.step, record.reason, record.first_status)
    _same(where, "outcome", rules, (said.step, said.reason, said.first_status))
    if said.transaction is not None and said.step != "ignored":
        _same(where, "transaction", record.transaction_id, said.transaction)
    if said.offset is not None:
        _same(where, "command's offset", record.command_offset, said.offset)
    entries = [
        (e.account, e.direction, e.amount, int(e.balance), e.version, e.held, e.incoming)
        for e in record.entries
    ]
    _same(where, "entries", entries, said.entries)
    for name, reservations, expected in (
        ("released", record.released, said.released),
        ("reserved", record.reserved, said.reserved),
    ):
        if reservations or expected:
            facts = [(r.account, r.direction, r.amount, r.held, r.incoming) for r in reservations]
            _same(where, name, facts, expected)
    if said.step == "posted":
        _same(where, "fee", (record.fee, record.commission_bps), (said.fee, said.bps))
    _agree_changes(where, model, record, said)
    _keeps_limits(where, model, said)
    net = sum(e.amount if e.direction == "debit" else -e.amount for e in record.entries)
    _same(where, "debits less credits", net, 0)


def _agree_changes(
    where: str, model: ledger.Ledger, record: JournalRecord, said: values.Said
) -> None:
    """Changes are as the model has them; a record may also state what did not change."""
    account, hold = record.account, record.hold
    if account is None and said.account is not None:
        raise Disagreement(f"{where}\nthe change of an account is missing: {said.account}")
    if account is not None:
        rules: tuple[Any, ...] = (
            account.type,
            account.currency,
            account.status,
            account.owner,
            account.min_balance,
            account.metadata,
        )
        _same(where, "account", rules, said.account or model.accounts[account.id].facts())
    if hold is None and said.hold is not None:
        raise Disagreement(f"{where}\nthe change of a hold is missing: {said.hold}")
    if hold is not None:
        rules = (
            hold.account,
            hold.currency,
            hold.amount,
            hold.expires_at_ms,
            hold.status,
            hold.captured if hold.status == "captured" else 0,
        )
        _same(where, "hold", rules, said.hold or model.holds[hold.id].facts())


def _keeps_limits(where: str, model: ledger.Ledger, said: values.Said) -> None:
    names = {entry[0] for entry in said.entries} | {reservation[0] for reservation in said.reserved}
    for name in names:
        if ids.is_system(name):
            continue
        account = model.accounts[name]
        available = account.balance - account.held
        if account.min_balance is not None and available < account.min_balance:
            raise Disagreement(f"{where}\n{name} has {available} available: {account}")


def _agree_coordination(where: str, partition: int, decision: Decision, said: values.Said) -> None:
    if not decision.messages and not said.sent:
        return
    numbers = [(one.partition, one.number) for one in decision.record.sent]
    _same(where, "sent", numbers, [(destination, number) for destination, number, _ in said.sent])
    _same(where, "coordination", len(decision.messages), len(said.sent))
    for (destination, message), (wanted, number, expected) in zip(
        decision.messages, said.sent, strict=True
    ):
        assert isinstance(message, coordination.NumberedMessage)
        rules = (destination, message.source, message.number, message.transaction_id)
        _same(where, "message", rules, (wanted, partition, number, expected[1]))
        _same(where, "message", _message_facts(message, expected), _expected(expected))


def _message_facts(
    message: coordination.NumberedMessage, expected: values.Message
) -> tuple[object, ...]:
    match message:
        case coordination.Prepare():
            entries = [(e.index, e.account, e.direction, e.amount) for e in message.entries]
            return "prepare", message.kind, message.currency, entries, message.wallets_only
        case coordination.Prepared():
            return "prepared", expected[3] == "transfer" and message.same_owner
        case coordination.Refused():
            return "refused", message.reason, message.index
        case coordination.Commit():
            return "commit", message.reference, message.description, message.metadata
        case coordination.Abort():
            return ("abort",)


def _expected(message: values.Message) -> tuple[object, ...]:
    match message:
        case ("prepare", _, kind, currency, items, _, only):
            return "prepare", kind, currency, [tuple(item) for item in items], only
        case ("prepared", _, same_owner, kind):
            return "prepared", kind == "transfer" and same_owner
        case ("refused", _, (precedence, index)):
            return "refused", list(Reason)[precedence - 1], index
        case ("commit", _, about):
            texts = about.get("reference"), about.get("description"), about.get("metadata", {})
            return "commit", *texts
    return (message[0],)


def _agree_transactions(
    where: str, model: ledger.Ledger, decision: Decision, said: values.Said
) -> None:
    """`transactions` has one record for each ordinary account's entry that was posted."""
    if not decision.transactions and not said.entries:
        return
    rules = [
        (t.account_id, t.entry, t.amount, t.balance, t.version, t.held, t.available, t.user_id)
        for t in decision.transactions
    ]
    expected = [
        (
            name,
            direction,
            amount,
            balance,
            version,
            held,
            balance - held,
            model.accounts[name].owner,
        )
        for name, direction, amount, balance, version, held, _ in said.entries
        if not ids.is_system(name)
    ]
    _same(where, "transactions", rules, expected)
    about = said.about
    texts = (about.get("reference"), about.get("description"), about.get("metadata", {}))
    for transaction in decision.transactions:
        _same(where, "kind", transaction.kind, said.kind)
        _same(where, "id", transaction.transaction_id, said.transaction)
        rules_about = (transaction.reference, transaction.description, transaction.metadata)
        _same(where, "about", rules_about, texts)
        _same(where, "sequence", transaction.sequence, decision.record.sequence)
        currency = model.accounts[transaction.account_id].currency
        _same(where, "currency", transaction.currency, currency)


# Whole states


def same_state(one: MemoryState, other: MemoryState) -> None:
    if one.partition != other.partition:
        raise Disagreement(f"replayed: {one.partition}\nlive: {other.partition}")
    left, right = one.values(), other.values()
    if left != right:
        for key in left.keys() | right.keys():
            if left.get(key) != right.get(key):
                raise Disagreement(f"{key!r} replayed: {left.get(key)!r}\nlive: {right.get(key)!r}")


def same_bytes(stored: Written, written: Written) -> None:
    """What a processor writes of a batch is what the rules decided on plain memory."""
    if stored != written:
        for what, one, other in zip(Written._fields, stored, written, strict=True):
            if one != other:
                raise Disagreement(f"{what}, from the store:\n{one}\nfrom memory:\n{other}")


def same_store(store: Store, plain: MemoryState) -> None:
    if found := store.differences(plain):
        raise Disagreement(f"partition {store.number}: {found[:3]}")


def same_as_model(model: ledger.Ledger, states: list[MemoryState]) -> None:
    """Every account, shard, transaction, hold, reservation and index entry, and none more."""
    counted: Counter[bytes] = Counter()
    for number, one in enumerate(states):
        at = f"state of partition {number}"
        for key, value in one.values().items():
            counted[key[:1]] += 1
            _same_value(at, model, number, key, value)
        _same(at, "time", one.partition.time_ms, model.time[number])
        _same(at, "pending", one.partition.pending, model.under_way[number])
        _same(at, "settings", one.partition.settings_version, model.settings_version[number])
    everything = "all partitions"
    _same(everything, "accounts", counted[state_keys.ACCOUNT], len(model.accounts))
    _same(everything, "system accounts", counted[state_keys.SYSTEM_ACCOUNT], len(model.system))
    _same(everything, "transactions", counted[state_keys.TRANSACTION], len(model.transactions))
    _same(everything, "holds", counted[state_keys.HOLD], len(model.holds))
    _same(everything, "prepared", counted[state_keys.PREPARED], len(model.prepared))
    due = sum(hold.status == "open" for hold in model.holds.values()) + sum(model.under_way)
    _same(everything, "due", counted[state_keys.DUE], due)


def _same_value(
    at: str, model: ledger.Ledger, number: int, key: bytes, value: state.StateValue
) -> None:
    where = f"{at}, key {key!r}"
    match value:
        case state.AccountState():
            account = model.accounts[key[1:].decode()]
            rules: tuple[Any, ...] = (
                value.type,
                value.currency,
                value.status,
                value.owner,
                value.min_balance,
                value.metadata,
            )
            _same(where, "account", rules, account.facts())
            rules = (value.balance, value.held, value.incoming, value.version)
            expected = (account.balance, account.held, account.incoming, account.version)
            _same(where, "totals", rules, expected)
        case state.SystemAccountState():
            shard = model.system[key[1:].decode()]
            _same(where, "shard", (int(value.balance), value.version), shard)
        case state.TransactionState():
            first = model.transactions[ids.to_text(key[1:])]
            rules = (value.status, value.reason, value.kind, value.account)
            expected_first = (first.status, first.reason, first.kind, first.account)
            _same(where, "transaction", rules, expected_first)
            _same(
                where,
                "reversal",
                (value.reversal, value.reversed),
                (first.reversal, first.reversed),
            )
            if value.entries:  # simple ones are kept in short
                entries = [(e.index, e.account, e.direction, e.amount) for e in value.entries]
                _same(where, "entries", entries, [tuple(item) for item in first.items])
        case state.HoldState():
            hold = model.holds[ids.to_text(key[1:])]
            rules = (
                value.account,
                value.currency,
                value.amount,
                value.expires_at_ms,
                value.status,
                value.captured if value.status == "captured" else 0,
            )
            _same(where, "hold", rules, hold.facts())
        case state.PreparedTransaction():
            prepared = model.prepared[number, ids.to_text(key[1:])]
            entries = [(e.index, e.account, e.direction, e.amount) for e in value.entries]
            rules = (value.coordinator, value.kind, entries)
            items = [tuple(item) for item in prepared.items]
            _same(where, "prepared", rules, (prepared.coordinator, prepared.kind, items))
        case state.Due():
            identity = str(ids.to_text(key[9:]))
            if value.what == "hold":
                at_ms = model.holds[identity].expires_at_ms
                _same(where, "status", model.holds[identity].status, "open")
            else:
                pending = model.transactions[identity].pending
                assert pending is not None, where
                at_ms = pending.deadline_ms
            _same(where, "due", int.from_bytes(key[1:9], "big"), at_ms)


def balanced(states: list[MemoryState]) -> None:
    """In each partition and currency debits less credits over all accounts, transit included, are
    0.
    """
    for number, one in enumerate(states):
        sums: Counter[str] = Counter()
        for key, value in one.values().items():
            match value:
                case state.AccountState():
                    raised = value.type in RAISED_BY_DEBIT
                    sums[value.currency] += value.balance if raised else -value.balance
                    if not -money.MAX_AMOUNT <= value.balance <= money.MAX_AMOUNT:
                        raise Disagreement(f"{key!r} has a balance of {value.balance}")
                    if value.held < 0 or value.incoming < 0:
                        raise Disagreement(
                            f"{key!r} has {value.held} held, {value.incoming} incoming"
                        )
                    if value.min_balance is not None and value.available < value.min_balance:
                        raise Disagreement(f"{key!r} has {value.available} available: {value}")
                case state.SystemAccountState():
                    _, role, currency, _ = key[1:].decode().split(":")
                    balance = int(value.balance)
                    sums[currency] += balance if role == ids.FUNDING else -balance
        _same(f"partition {number}", "books", {c: total for c, total in sums.items() if total}, {})


def transit_is_on_the_way(
    states: list[MemoryState], undelivered: Iterable[tuple[int, coordination.NumberedMessage]]
) -> None:
    """Over all partitions transit is what the commits that are on their way will take from it."""
    expected: Counter[str] = Counter()
    for destination, message in undelivered:
        if isinstance(message, coordination.Commit):
            prepared = states[destination].get(state_keys.prepared(message.transaction_id))
            assert isinstance(prepared, state.PreparedTransaction), (
                f"a commit of what was not prepared: {message}"
            )
            for entry in prepared.entries:
                credited = entry.direction == "credit"
                expected[prepared.currency] += entry.amount if credited else -entry.amount
    found = _transit(states)
    for currency in expected.keys() | found.keys():
        _same("all partitions", f"transit {currency}", found[currency], expected[currency])


def quiet(states: list[MemoryState]) -> None:
    transit = {currency: total for currency, total in _transit(states).items() if total}
    _same("all partitions", "transit at rest", transit, {})
    for number, one in enumerate(states):
        at = f"partition {number}, at rest"
        _same(at, "pending", one.partition.pending, 0)
        held: Counter[str] = Counter()
        for value in one.values().values():
            if isinstance(value, state.PreparedTransaction) or (
                isinstance(value, state.TransactionState) and value.status == "pending"
            ):
                raise Disagreement(f"{at}: {value} is still under way")
            if isinstance(value, state.HoldState) and value.status == "open":
                held[value.account] += value.amount
        for key, value in one.values().items():
            if isinstance(value, state.AccountState):
                reserved = value.held + value.incoming
                _same(at, f"reserved of {key!r}", reserved, held[key[1:].decode()])


def _transit(states: list[MemoryState]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in states:
        for key, value in one.values().items():
            if isinstance(value, state.SystemAccountState):
                _, role, currency, _ = key[1:].decode().split(":")
                if role == ids.TRANSIT:
                    found[currency] += int(value.balance)
    return found
