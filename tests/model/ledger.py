"""The naive model: the whole ledger in plain dictionaries, all partitions in one view, written from
docs/rules.md alone.

It is told what each partition read, in the order in which it was read, and says what must have come
of it. It shares no code with the rules and never sees what they said; its messages are tuples.
"""

import heapq
from collections import deque
from dataclasses import replace

from schemas import ids
from schemas.reasons import Reason
from tests.model import command_validation
from tests.model.faults import Faults
from tests.model.values import (
    Account,
    Fault,
    Hold,
    Item,
    Message,
    Pending,
    Prepared,
    Said,
    Settings,
    Transaction,
    fault,
    reason_of,
)

AT_ONCE = 1_000


class Ledger(Faults):
    """All partitions. What reads a record returns what each journal record of it must say."""

    # What a partition reads

    def command(
        self, partition: int, offset: int, key: bytes | None, value: bytes, time_ms: int
    ) -> list[Said]:
        given = self.log_times[partition]
        times = [ms for first, last, ms in given if first <= offset <= last]
        if given:
            self.log_times[partition] = [each for each in given if each[1] > offset]
        # The last one that was given counts.
        said = self._pass_time(partition, min(time_ms, *times[-1:]) if times else time_ms)
        said.append(self._command(partition, offset, key, value))
        return said

    def message(self, partition: int, source: int, number: int, time_ms: int) -> list[Said]:
        said = self._pass_time(partition, time_ms)
        way = (source, partition)
        seen = self.seen.get(way, 0)
        if number <= seen:
            return [*said, Said("duplicate")]
        assert number == seen + 1, f"a gap: {number} after {seen} on {way}"
        self.seen[way] = number
        message = self.on_the_way[way].popleft()
        said.append(self._message(partition, source, message))
        return said

    def tick(self, partition: int, time_ms: int) -> list[Said]:
        return [*self._pass_time(partition, time_ms), Said("ticked")]

    def decide_log_time(self, partition: int, first: int, last: int, time_ms: int) -> list[Said]:
        """Of commands; it lets no time pass itself."""
        self.log_times[partition].append((first, last, time_ms))
        return [Said("timed")]

    def configure(
        self, partition: int, settings: Settings, genesis: bool, time_ms: int
    ) -> list[Said]:
        """A partition's first is its genesis, before anything is read."""
        said = self._pass_time(partition, time_ms)
        if genesis and self.settings[partition] is not None:
            return [*said, Said("ignored")]
        before = self.settings[partition]
        if before is not None and before.rules_version > settings.rules_version:
            settings = replace(settings, rules_version=before.rules_version)
        self.settings[partition] = settings
        self.settings_version[partition] += 1
        return [*said, Said("configured")]

    # What is due

    def _pass_time(self, partition: int, time_ms: int) -> list[Said]:
        self.time[partition] = max(self.time[partition], time_ms)
        said: list[Said] = []
        due = self.due[partition]
        while due and due[0][0] <= self.time[partition] and len(said) < AT_ONCE:
            at, identity, what = heapq.heappop(due)
            if what == "hold":
                hold = self.holds[identity]
                if hold.status == "open" and hold.expires_at_ms == at:
                    said.append(self._expire(identity, hold))
            else:
                transaction = self.transactions[identity]
                if transaction.pending is not None:
                    late = Reason.PARTICIPANT_TIMEOUT
                    said.append(self._reject_pending(partition, identity, transaction, late))
        return said

    def _expire(self, identity: str, hold: Hold) -> Said:
        hold.status = "expired"
        said = Said("expired", identity, hold=hold.facts())
        self._release(said, self._hold_item(hold))
        return said

    # Commands

    def _command(self, partition: int, offset: int, key: bytes | None, value: bytes) -> Said:
        command = command_validation.read(value)
        if isinstance(command, Reason):
            return Said("refused", reason=command)
        kind, account = command["kind"], command["account"]
        if key != account.encode() or self.home(account) != partition:
            return Said("refused", reason=Reason.MISROUTED, kind=kind)
        if kind == "post":
            ordinary = [e["account"] for e in command["entries"] if not ids.is_system(e["account"])]
            if not ordinary or account != min(ordinary):
                return Said("refused", reason=Reason.MISROUTED, kind=kind)
        own_key = command.get("idempotency_key") or command["id"]
        only = command.get("wallets_only", False)
        identity = ids.transaction_id(account, own_key, wallets_only=only)
        digest = command_validation.body(command)
        first = self.transactions.get(identity)
        if first is not None and first.body != digest:
            return Said("refused", reason=Reason.IDEMPOTENCY_KEY_REUSED, kind=kind)
        if first is not None:
            return Said(
                "replayed",
                identity,
                first.reason,
                first_status=first.status,
                kind=kind,
            )
        return self._decide(partition, offset, identity, command, digest)

    def _decide(
        self,
        partition: int,
        offset: int,
        identity: str,
        command: command_validation.Body,
        digest: bytes,
    ) -> Said:
        kind, account_id = command["kind"], command["account"]
        transaction = Transaction(digest, kind, account_id, "rejected")
        self.transactions[identity] = transaction
        fee, bps = self._fee(partition, command)
        reason = self._test(partition, command, fee)
        fee_reserved = True
        if (
            reason in (Reason.INSUFFICIENT_FUNDS, Reason.BALANCE_OVERFLOW)
            and fee
            and self.home(command["to"]) != partition
            and self.accounts[account_id].type == "wallet"
            and self.accounts[account_id].owner is not None
        ):
            alone = self._test(partition, command, 0)
            if alone not in (Reason.INSUFFICIENT_FUNDS, Reason.BALANCE_OVERFLOW):
                reason, fee_reserved = alone, False
        if reason is not None:
            transaction.reason = reason
            return Said("rejected", identity, reason, kind=kind, about=command)
        transaction.currency = self._currency(command)
        items = self._items(partition, command, fee) or []
        transaction.fee, transaction.bps = fee, bps
        others = sorted({self._where(item, partition) for item in items} - {partition})
        if others:
            if not fee_reserved:
                items = self._items(partition, command, 0) or []
            return self._begin(partition, offset, identity, command, items, others, fee_reserved)
        said = Said("posted", identity, kind=kind, fee=fee, bps=bps, about=command)
        self._post(partition, identity, transaction, command, items, said)
        return said

    def _post(
        self,
        partition: int,
        identity: str,
        transaction: Transaction,
        command: command_validation.Body,
        items: list[Item],
        said: Said,
    ) -> None:
        """All that follows when a command is posted in the step in which it was read."""
        kind, account_id = command["kind"], command["account"]
        transaction.status = "posted"
        transaction.items = tuple(items)
        if kind == "open_account":
            limit = command.get("min_balance")
            if limit is None and command["type"] == "wallet":
                limit = 0
            self.accounts[account_id] = Account(
                command["type"],
                command["currency"],
                command.get("owner"),
                limit,
                command.get("metadata", {}),
            )
            said.account = self.accounts[account_id].facts()
        elif kind == "set_limit":
            self.accounts[account_id].min_balance = command.get("min_balance")
            said.account = self.accounts[account_id].facts()
        elif kind == "change_account":
            account = self.accounts[account_id]
            if "min_balance" in command:
                account.min_balance = command["min_balance"]
            elif command.get("no_limit"):
                account.min_balance = None
            account.metadata = self._metadata_after(account, command)
            said.account = account.facts()
        elif kind in ("freeze", "unfreeze", "close"):
            wanted = {"freeze": "frozen", "unfreeze": "open", "close": "closed"}[kind]
            if self.accounts[account_id].status != wanted:
                self.accounts[account_id].status = wanted
                said.account = self.accounts[account_id].facts()
        elif kind == "hold":
            expires = command.get("expires_at_ms")
            if expires is None:
                expires = self.time[partition] + self._settings(partition).hold_ttl_ms
            hold = Hold(account_id, self.accounts[account_id].currency, command["amount"], expires)
            self.holds[identity] = hold
            heapq.heappush(self.due[partition], (expires, identity, "hold"))
            said.hold = hold.facts()
            self._reserve(said, self._hold_item(hold))
        elif kind == "void":
            hold = self.holds[command["hold_id"]]
            hold.status = "voided"
            said.hold = hold.facts()
            self._release(said, self._hold_item(hold))
        elif kind == "capture":
            hold = self.holds[command["hold_id"]]
            hold.status, hold.captured = "captured", items[0].amount
            said.hold = hold.facts()
            self._release(said, self._hold_item(hold))
        elif kind == "reverse":
            original = self.transactions[command["transaction_id"]]
            original.reversal, original.reversed = identity, True
        self._enter(said, items)

    def _begin(
        self,
        partition: int,
        offset: int,
        identity: str,
        command: command_validation.Body,
        items: list[Item],
        others: list[int],
        fee_reserved: bool,
    ) -> Said:
        """The first step of a transaction over several partitions."""
        kind = command["kind"]
        transaction = self.transactions[identity]
        transaction.status = "pending"
        said = Said("pending", identity, kind=kind, about=command)
        own = [item for item in items if self._where(item, partition) == partition]
        if kind == "capture":
            hold = self.holds[command["hold_id"]]
            hold.status = "capturing"
            said.hold = hold.facts()
            reserved = []
        else:
            reserved = [item for item in own if not ids.is_system(item.account)]
        if kind == "reverse":
            self.transactions[command["transaction_id"]].reversal = identity
        for item in reserved:
            self._reserve(said, item)
        deadline = self.time[partition] + self._settings(partition).participant_timeout_ms
        transaction.pending = Pending(
            command=command,
            offset=offset,
            deadline_ms=deadline,
            items=items,
            reserved=reserved,
            waiting=set(others),
            participants=tuple(others),
            fee_reserved=fee_reserved,
        )
        heapq.heappush(self.due[partition], (deadline, identity, "pending"))
        self.under_way[partition] += 1
        sender = self.accounts[command["account"]]
        owner = sender.owner if transaction.fee and sender.type == "wallet" else None
        only = command.get("wallets_only", False)
        for other in others:
            there = tuple(item for item in items if self._where(item, partition) == other)
            self._send(
                said,
                partition,
                other,
                ("prepare", identity, kind, transaction.currency, there, owner, only),
            )
        return said

    # Coordination messages

    def _message(self, partition: int, source: int, message: Message) -> Said:
        match message:
            case ("prepare", identity, kind, currency, items, owner, only):
                return self._prepare(
                    partition, source, identity, kind, currency, items, owner, only
                )
            case ("prepared", identity, same_owner, _):
                return self._answer(partition, source, identity, None, same_owner)
            case ("refused", identity, fault):
                return self._answer(partition, source, identity, fault, False)
            case ("commit", identity, about):
                return self._commit(partition, identity, about)
            case ("abort", identity):
                return self._abort(partition, identity)
        raise AssertionError(message)

    def _prepare(
        self,
        partition: int,
        coordinator: int,
        identity: str,
        kind: str,
        currency: str,
        items: tuple[Item, ...],
        owner: str | None,
        only: bool,
    ) -> Said:
        faults: list[Fault] = []
        for item in items:
            account = self.accounts.get(item.account)
            if account is None:
                faults.append(fault(Reason.ACCOUNT_NOT_FOUND, item.place))
                continue
            if not self._type_fits(partition, kind, only, account.type):
                faults.append(fault(Reason.ACCOUNT_TYPE_NOT_ALLOWED, item.place))
            if account.status == "closed":
                faults.append(fault(Reason.ACCOUNT_CLOSED, item.place))
            if account.status == "frozen":
                faults.append(fault(Reason.ACCOUNT_FROZEN, item.place))
            if account.currency != currency:
                faults.append(fault(Reason.CURRENCY_MISMATCH, item.place))
            faults.extend(self._money_faults(item))
        if faults:
            worst = min(faults)
            said = Said("declined", identity, reason_of(worst), kind=kind)
            self._send(said, partition, coordinator, ("refused", identity, worst))
            return said
        said = Said("prepared", identity, kind=kind)
        self.prepared[partition, identity] = Prepared(coordinator, kind, items)
        for item in items:
            self._reserve(said, item)
        receiver = self.accounts[items[0].account]
        same_owner = owner is not None and receiver.type == "wallet" and receiver.owner == owner
        self._send(said, partition, coordinator, ("prepared", identity, same_owner, kind))
        return said

    def _answer(
        self, partition: int, source: int, identity: str, fault: Fault | None, same_owner: bool
    ) -> Said:
        transaction = self.transactions[identity]
        pending = transaction.pending
        if pending is None or source not in pending.waiting:
            return Said("ignored", identity)
        pending.waiting.remove(source)
        if fault is not None:
            pending.refusals[source] = fault
        pending.same_owner = pending.same_owner or same_owner
        if pending.waiting:
            return Said("answered", identity)
        if pending.refusals:
            reason = reason_of(min(pending.refusals.values()))
            return self._reject_pending(partition, identity, transaction, reason)
        if transaction.kind == "transfer" and not pending.fee_reserved and not pending.same_owner:
            reason = Reason.INSUFFICIENT_FUNDS
            return self._reject_pending(partition, identity, transaction, reason)
        return self._post_pending(partition, identity, transaction, pending)

    def _post_pending(
        self, partition: int, identity: str, transaction: Transaction, pending: Pending
    ) -> Said:
        command = pending.command
        if transaction.kind == "transfer" and pending.same_owner:
            transaction.fee = transaction.bps = 0
            pending.items = self._items(partition, command, 0) or []
        said = Said(
            "posted",
            identity,
            offset=pending.offset,
            kind=transaction.kind,
            fee=transaction.fee,
            bps=transaction.bps,
            about=command,
        )
        if transaction.kind == "capture":
            hold = self.holds[command["hold_id"]]
            hold.status, hold.captured = "captured", pending.items[0].amount
            said.hold = hold.facts()
            self._release(said, self._hold_item(hold))
        if transaction.kind == "reverse":
            self.transactions[command["transaction_id"]].reversed = True
        for item in pending.reserved:
            self._release(said, item)
        own = [item for item in pending.items if self._where(item, partition) == partition]
        self._enter(said, own)
        self._enter_transit(said, partition, transaction.currency, own)
        transaction.items = tuple(pending.items)
        transaction.status = "posted"
        self._end_pending(partition, transaction)
        for participant in pending.participants:
            self._send(said, partition, participant, ("commit", identity, command))
        return said

    def _reject_pending(
        self, partition: int, identity: str, transaction: Transaction, reason: Reason
    ) -> Said:
        pending = transaction.pending
        assert pending is not None
        said = Said(
            "rejected",
            identity,
            reason,
            offset=pending.offset,
            kind=transaction.kind,
            about=pending.command,
        )
        for item in pending.reserved:
            self._release(said, item)
        if transaction.kind == "capture":
            identity_of_hold = pending.command["hold_id"]
            hold = self.holds[identity_of_hold]
            if self.time[partition] >= hold.expires_at_ms:
                hold.status = "expired"
                self._release(said, self._hold_item(hold))
            else:
                hold.status = "open"
                due = (hold.expires_at_ms, identity_of_hold, "hold")
                heapq.heappush(self.due[partition], due)
            said.hold = hold.facts()
        if transaction.kind == "reverse":
            self.transactions[pending.command["transaction_id"]].reversal = None
        transaction.status, transaction.reason = "rejected", reason
        transaction.fee = transaction.bps = 0
        self._end_pending(partition, transaction)
        for participant in pending.participants:
            if participant not in pending.refusals:
                self._send(said, partition, participant, ("abort", identity))
        return said

    def _end_pending(self, partition: int, transaction: Transaction) -> None:
        transaction.pending = None
        self.under_way[partition] -= 1

    def _commit(self, partition: int, identity: str, about: command_validation.Body) -> Said:
        prepared = self.prepared.pop((partition, identity), None)
        if prepared is None:
            return Said("ignored", identity)
        said = Said("committed", identity, kind=prepared.kind, about=about)
        for item in prepared.items:
            self._release(said, item)
        self._enter(said, prepared.items)
        currency = self.accounts[prepared.items[0].account].currency
        self._enter_transit(said, partition, currency, prepared.items)
        return said

    def _abort(self, partition: int, identity: str) -> Said:
        prepared = self.prepared.pop((partition, identity), None)
        if prepared is None:
            return Said("ignored", identity)
        said = Said("aborted", identity, kind=prepared.kind)
        for item in prepared.items:
            self._release(said, item)
        return said

    def _send(self, said: Said, source: int, destination: int, message: Message) -> None:
        way = (source, destination)
        number = self.sent.get(way, 0) + 1
        self.sent[way] = number
        self.on_the_way.setdefault(way, deque()).append(message)
        said.sent.append((destination, number, message))
