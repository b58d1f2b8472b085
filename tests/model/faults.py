"""What the naive model tests of a command, and the entries that it has: everything that is wrong,
the least of it told.

The groups follow the order of docs/rules.md. It changes nothing.
"""

from collections.abc import Iterator

from schemas import ids, money
from schemas.reasons import Reason
from tests.model import command_validation
from tests.model.books import Books
from tests.model.values import Account, Fault, Hold, Item, Transaction, fault, reason_of

LARGEST = 2**53 - 1
REVERSIBLE = {"credit", "debit", "transfer", "post", "capture"}
STATUS_MATTERS = {"hold", "capture", "freeze", "unfreeze", "close", "set_limit", "change_account"}
MOST_METADATA = 4_096


class Faults(Books):
    # What is tested

    def _test(self, partition: int, command: command_validation.Body, fee: int) -> Reason | None:
        """The first reason of the catalogue that holds at the command's own step."""
        for faults in self._tests(partition, command, fee):
            worst = min(faults, default=None)
            if worst is not None:
                return reason_of(worst)
        return None

    def _tests(
        self, partition: int, command: command_validation.Body, fee: int
    ) -> Iterator[list[Fault]]:
        """Groups of faults in the order of the catalogue; a later group may rely on the earlier
        ones being empty.
        """
        kind, account_id = command["kind"], command["account"]
        account = self.accounts.get(account_id)
        yield list(_faults_of_form(command))
        yield self._limit_faults(partition, command, account)
        only = command.get("wallets_only", False)
        if kind == "open_account":
            if account is not None:
                yield [fault(Reason.ACCOUNT_EXISTS)]
            if not self._type_fits(partition, kind, only, command["type"]):
                yield [fault(Reason.ACCOUNT_TYPE_NOT_ALLOWED)]
            yield from self._condition_faults(partition, command, 0, 0)
            return
        if account is None:
            yield [fault(Reason.ACCOUNT_NOT_FOUND)]
            return
        names = self._local_names(partition, command)
        yield [
            fault(Reason.ACCOUNT_NOT_FOUND, index)
            for index, name in names
            if name not in self.accounts
        ]
        original, hold = self._named(command)
        if kind == "reverse" and original is None:
            yield [fault(Reason.TRANSACTION_NOT_FOUND)]
        if kind in ("capture", "void") and hold is None:
            yield [fault(Reason.HOLD_NOT_FOUND)]
        yield self._type_faults(partition, command, names)
        touched = [(index, self.accounts[name]) for index, name in names]
        if kind in STATUS_MATTERS and not names:
            touched = [(0, account)]
        yield [
            fault(Reason.ACCOUNT_CLOSED, index) for index, one in touched if one.status == "closed"
        ]
        if kind in ("hold", "capture") or names:
            yield [
                fault(Reason.ACCOUNT_FROZEN, index)
                for index, one in touched
                if one.status == "frozen"
            ]
        yield self._currency_faults(command, touched if names or kind == "hold" else [])
        if original is not None:
            yield _reversal_faults(original)
        if hold is not None:
            yield self._hold_faults(partition, command, hold)
        if kind == "hold" and command.get("expires_at_ms", LARGEST) <= self.time[partition]:
            yield [fault(Reason.HOLD_EXPIRED)]
        if kind == "close" and (account.balance or account.held or account.incoming):
            yield [fault(Reason.ACCOUNT_NOT_EMPTY)]
        if kind == "change_account":
            texts = "".join(map("".join, self._metadata_after(account, command).items()))
            if len(texts.encode()) > MOST_METADATA:
                yield [fault(Reason.METADATA_TOO_LARGE)]
        if kind in ("set_limit", "change_account"):
            limit = command.get("min_balance")
            if limit is not None and limit > account.balance - account.held:
                yield [fault(Reason.INSUFFICIENT_FUNDS)]
        items = self._items(partition, command, fee) or []
        if kind == "hold":
            wanted = [Item(0, account_id, "debit", command["amount"])]
        else:
            wanted = [
                item
                for item in items
                if self._where(item, partition) == partition
                and not ids.is_system(item.account)
                and not (kind == "capture" and item.place == 0)
            ]
        faults = [fault for item in wanted for fault in self._money_faults(item)]
        if kind == "post" and sum(e.amount for e in items if e.direction == "debit") > LARGEST:
            faults.append(fault(Reason.BALANCE_OVERFLOW))
        yield faults
        several = any(self._where(item, partition) != partition for item in items)
        after = account.balance - account.held
        for item in wanted:
            if item.account != account_id:
                continue
            if not self._raises(item):
                after -= item.amount
            elif kind != "hold" and not several:
                after += item.amount
        if kind == "capture" and not several and hold is not None:
            held = self._hold_item(hold)
            after += 0 if self._raises(held) else held.amount
            after += items[0].amount if self._raises(items[0]) else -items[0].amount
        if kind == "void" and hold is not None and not self._raises(self._hold_item(hold)):
            after += hold.amount
        yield from self._condition_faults(partition, command, account.version, after)
        if several and self.under_way[partition] >= self._settings(partition).max_pending:
            yield [fault(Reason.TOO_MANY_PENDING)]

    def _type_faults(
        self, partition: int, command: command_validation.Body, names: list[tuple[int, str]]
    ) -> list[Fault]:
        kind, only = command["kind"], command.get("wallets_only", False)
        if not names and kind not in ("post", "reverse"):
            names = [(0, command["account"])]
        faults = [
            fault(Reason.ACCOUNT_TYPE_NOT_ALLOWED, index)
            for index, name in names
            if not self._type_fits(partition, kind, only, self.accounts[name].type)
        ]
        if kind == "post" and only:
            faults += [
                fault(Reason.ACCOUNT_TYPE_NOT_ALLOWED, index)
                for index, entry in enumerate(command["entries"])
                if ids.is_system(entry["account"])
            ]
        return faults

    def _type_fits(self, partition: int, kind: str, only: bool, type: str) -> bool:
        """Whether a kind of command may use an account of a type, by this partition's rules."""
        if only:
            return type == "wallet"
        if self._settings(partition).rules_version == 1:
            return True
        simple = kind in ("credit", "debit", "transfer", "hold", "capture")
        return not (simple and type in ("asset", "expense"))

    def _limit_faults(
        self, partition: int, command: command_validation.Body, account: Account | None
    ) -> list[Fault]:
        if command["kind"] not in ("open_account", "set_limit", "change_account"):
            return []
        limit = command.get("min_balance")
        if command["kind"] == "open_account":
            wallet = command["type"] == "wallet"
        else:
            wallet = account is not None and account.type == "wallet"
        bad = limit is not None and (
            limit > 0 or (wallet and limit < -self._settings(partition).max_overdraft)
        )
        bad = bad or (limit is None and wallet and command["kind"] == "set_limit")
        bad = bad or (command.get("no_limit", False) and (wallet or limit is not None))
        return [fault(Reason.LIMIT_OUT_OF_BOUNDS)] if bad else []

    def _currency_faults(
        self, command: command_validation.Body, touched: list[tuple[int, Account]]
    ) -> list[Fault]:
        currency = self._currency(command)
        faults = [
            fault(Reason.CURRENCY_MISMATCH, index)
            for index, one in touched
            if one.currency != currency
        ]
        if command["kind"] == "post":
            faults += [
                fault(Reason.CURRENCY_MISMATCH, index)
                for index, entry in enumerate(command["entries"])
                if ids.is_system(entry["account"])
                and entry["account"].rpartition(":")[2] != currency
            ]
        return faults

    def _hold_faults(
        self, partition: int, command: command_validation.Body, hold: Hold
    ) -> list[Fault]:
        if hold.status in ("captured", "voided"):
            return [fault(Reason.HOLD_CLOSED)]
        if hold.status == "capturing":
            return [fault(Reason.HOLD_BUSY)]
        if hold.status == "expired" or self.time[partition] >= hold.expires_at_ms:
            return [fault(Reason.HOLD_EXPIRED)]
        if command["kind"] == "capture" and command.get("amount", 0) > hold.amount:
            return [fault(Reason.CAPTURE_EXCEEDS_HOLD)]
        return []

    def _money_faults(self, item: Item) -> Iterator[Fault]:
        account = self.accounts[item.account]
        overflow = item.amount > LARGEST
        if self._raises(item):
            overflow = overflow or account.balance + account.incoming + item.amount > LARGEST
        else:
            left = account.balance - account.held - item.amount
            if account.min_balance is not None and left < account.min_balance:
                yield fault(Reason.INSUFFICIENT_FUNDS, item.place)
            overflow = overflow or left < -LARGEST
        if overflow:
            yield fault(Reason.BALANCE_OVERFLOW, item.place)

    def _condition_faults(
        self, partition: int, command: command_validation.Body, version: int, after: int
    ) -> Iterator[list[Fault]]:
        expected, least = command.get("expected_version"), command.get("min_available_after")
        if (expected is not None and expected != version) or (least is not None and least > after):
            yield [fault(Reason.CONDITION_FAILED)]

    # What a command means

    def _metadata_after(self, account: Account, command: command_validation.Body) -> dict[str, str]:
        """What changes an account sets each name that it gives; an empty text takes it out."""
        given = command.get("metadata", {})
        kept = {name: text for name, text in account.metadata.items() if name not in given}
        return kept | {name: text for name, text in given.items() if text != ""}

    def _fee(self, partition: int, command: command_validation.Body) -> tuple[int, int]:
        if command["kind"] != "transfer":
            return 0, 0
        bps = self._settings(partition).commission_bps
        fee = (command["amount"] * bps + 5_000) // 10_000
        sender = self.accounts.get(command["account"])
        # Only this partition's accounts are known in the first step.
        receiver = (
            self.accounts.get(command["to"]) if self.home(command["to"]) == partition else None
        )
        if sender is not None and receiver is not None and _one_owner(sender, receiver):
            fee = 0
        return (fee, bps) if fee else (0, 0)

    def _named(self, command: command_validation.Body) -> tuple[Transaction | None, Hold | None]:
        """The transaction or the hold that a command names, where it is its account's."""
        original = hold = None
        if command["kind"] == "reverse":
            original = self.transactions.get(command["transaction_id"])
            if original is not None and original.account != command["account"]:
                original = None
        if command["kind"] in ("capture", "void"):
            hold = self.holds.get(command["hold_id"])
            if hold is not None and hold.account != command["account"]:
                hold = None
        return original, hold

    def _currency(self, command: command_validation.Body) -> str | None:
        account = self.accounts.get(command["account"])
        given: str | None = command.get("currency")
        return given if given is not None else account.currency if account is not None else None

    def _local_names(
        self, partition: int, command: command_validation.Body
    ) -> list[tuple[int, str]]:
        """The ordinary accounts of this partition that have an entry, with its index."""
        kind = command["kind"]
        if kind == "post":
            names = [entry["account"] for entry in command["entries"]]
        elif kind == "capture" and self._named(command)[1] is None:
            return []
        elif kind in ("transfer", "capture"):
            names = [command["account"], *([command["to"]] if "to" in command else [])]
        elif kind == "credit":
            return [(1, command["account"])]
        elif kind == "debit":
            return [(0, command["account"])]
        elif kind == "reverse":
            original, _ = self._named(command)
            # What is no reversible transaction has no entries to turn round.
            if original is None or _reversal_faults(original) == [fault(Reason.NOT_REVERSIBLE)]:
                return []
            names = [item.account for item in original.items]
        else:
            return []
        return [
            (index, name)
            for index, name in enumerate(names)
            if not ids.is_system(name) and self.home(name) == partition
        ]

    def _items(
        self, partition: int, command: command_validation.Body, fee: int
    ) -> list[Item] | None:
        kind, account_id = command["kind"], command["account"]
        currency = self._currency(command)
        funding = f"system:funding:{currency}:{partition}"
        triples: list[tuple[str, str, int]] = []
        if kind == "credit":
            triples = [
                (funding, "debit", command["amount"]),
                (account_id, "credit", command["amount"]),
            ]
        elif kind == "debit":
            triples = [
                (account_id, "debit", command["amount"]),
                (funding, "credit", command["amount"]),
            ]
        elif kind == "transfer":
            triples = [
                (account_id, "debit", command["amount"] + fee),
                (command["to"], "credit", command["amount"]),
            ]
            if fee:
                triples.append((f"system:fees:{currency}:{partition}", "credit", fee))
        elif kind == "post":
            for entry in command["entries"]:
                name = entry["account"]
                shard = f"{name}:{partition}" if ids.is_system(name) else name
                triples.append((shard, entry["direction"], entry["amount"]))
        elif kind == "capture":
            hold = self.holds[command["hold_id"]]
            amount = command.get("amount", hold.amount)
            triples = [
                (account_id, "debit", amount),
                (command.get("to", funding), "credit", amount),
            ]
        elif kind == "reverse":
            original = self.transactions[command["transaction_id"]]
            triples = [
                (item.account, _other(item.direction), item.amount) for item in original.items
            ]
        return [Item(index, *triple) for index, triple in enumerate(triples)]

    def _where(self, item: Item, coordinator: int) -> int:
        return coordinator if ids.is_system(item.account) else self.home(item.account)


def _faults_of_form(command: command_validation.Body) -> Iterator[Fault]:
    """What a command's own words say, whatever the state is."""
    kind = command["kind"]
    currency = command.get("currency")
    if currency is not None and currency not in money.EXPONENTS:
        yield fault(Reason.CURRENCY_UNKNOWN)
    if ids.is_system(command["account"]) or ids.is_system(command.get("to", "")):
        yield fault(Reason.SYSTEM_ACCOUNT)
    if kind in ("transfer", "capture") and command.get("to") == command["account"]:
        yield fault(Reason.SELF_TRANSFER)
    if kind != "post":
        return
    entries = command["entries"]
    names = [entry["account"] for entry in entries]
    for index, name in enumerate(names):
        if ids.is_system(name):
            role, _, code = name.removeprefix("system:").partition(":")
            if role not in ("funding", "fees") or code not in money.EXPONENTS:
                yield fault(Reason.SYSTEM_ACCOUNT, index)
    if len(entries) < 2:
        yield fault(Reason.TOO_FEW_ENTRIES)
    if len(entries) > 100:
        yield fault(Reason.TOO_MANY_ENTRIES)
    if len(set(names)) < len(names):
        yield fault(Reason.DUPLICATE_ACCOUNT)
    sides = {"debit": 0, "credit": 0}
    for entry in entries:
        sides[entry["direction"]] += entry["amount"]
    if sides["debit"] != sides["credit"]:
        yield fault(Reason.UNBALANCED)


def _reversal_faults(original: Transaction) -> list[Fault]:
    if original.status != "posted" or not original.items or original.kind not in REVERSIBLE:
        return [fault(Reason.NOT_REVERSIBLE)]
    if original.reversed:
        return [fault(Reason.ALREADY_REVERSED)]
    if original.reversal is not None:
        return [fault(Reason.REVERSAL_PENDING)]
    return []


def _one_owner(sender: Account, receiver: Account) -> bool:
    wallets = sender.type == "wallet" and receiver.type == "wallet"
    return wallets and sender.owner is not None and sender.owner == receiver.owner


def _other(direction: str) -> str:
    return "credit" if direction == "debit" else "debit"
