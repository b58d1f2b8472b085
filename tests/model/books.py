"""The naive model's books: every account, shard and reservation, and what an entry does to them.

One dictionary for all partitions. It tests nothing and decides nothing.
"""

from collections import deque
from collections.abc import Iterable

from schemas import ids
from tests.model import command_validation
from tests.model.values import Account, Hold, Item, Message, Prepared, Said, Settings, Transaction

RAISED_BY_DEBIT = {"asset", "expense"}


class Books:
    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.time = [0] * partitions
        # First and last offset of commands, and the time that an operator gave them.
        self.log_times: list[list[tuple[int, int, int]]] = [[] for _ in range(partitions)]
        self.settings: list[Settings | None] = [None] * partitions
        self.settings_version = [0] * partitions
        self.under_way = [0] * partitions
        self.due: list[list[tuple[int, str, str]]] = [[] for _ in range(partitions)]
        self.accounts: dict[str, Account] = {}
        # Balance (on the normal side) and version of a shard, by its full name.
        self.system: dict[str, tuple[int, int]] = {}
        self.transactions: dict[str, Transaction] = {}
        self.holds: dict[str, Hold] = {}
        self.prepared: dict[tuple[int, str], Prepared] = {}
        self.sent: dict[tuple[int, int], int] = {}
        self.seen: dict[tuple[int, int], int] = {}
        self.on_the_way: dict[tuple[int, int], deque[Message]] = {}
        self._homes: dict[str, int] = {}

    def home(self, account: str) -> int:
        partition_of_account = self._homes.get(account)
        if partition_of_account is None:
            partition_of_account = (
                command_validation.murmur2(account.encode()) & 0x7FFFFFFF
            ) % self.partitions
            self._homes[account] = partition_of_account
        return partition_of_account

    def _settings(self, partition: int) -> Settings:
        settings = self.settings[partition]
        assert settings is not None, "a partition decides nothing before its genesis"
        return settings

    # What an entry or a reservation does

    def _raises(self, item: Item) -> bool:
        """Whether the entry raises its account's balance."""
        if ids.is_system(item.account):
            by_debit = item.account.startswith("system:funding:")
        else:
            by_debit = self.accounts[item.account].type in RAISED_BY_DEBIT
        return by_debit == (item.direction == "debit")

    def _enter(self, said: Said, items: Iterable[Item]) -> None:
        for item in items:
            change = item.amount if self._raises(item) else -item.amount
            if ids.is_system(item.account):
                balance, version = self.system.get(item.account, (0, 0))
                balance, version = balance + change, version + 1
                self.system[item.account] = (balance, version)
                after = (balance, version, 0, 0)
            else:
                account = self.accounts[item.account]
                account.balance += change
                account.version += 1
                after = (account.balance, account.version, account.held, account.incoming)
            said.entries.append((item.account, item.direction, item.amount, *after))

    def _enter_transit(
        self, said: Said, partition: int, currency: str | None, items: Iterable[Item]
    ) -> None:
        net = sum(item.amount if item.direction == "debit" else -item.amount for item in items)
        if net:
            direction = "credit" if net > 0 else "debit"
            shard = f"system:transit:{currency}:{partition}"
            self._enter(said, [Item(-1, shard, direction, abs(net))])

    def _reserve(self, said: Said, item: Item) -> None:
        said.reserved.append(self._set_aside(item, item.amount))

    def _release(self, said: Said, item: Item) -> None:
        said.released.append(self._set_aside(item, -item.amount))

    def _set_aside(self, item: Item, change: int) -> tuple[str, str, int, int, int]:
        account = self.accounts[item.account]
        if self._raises(item):
            account.incoming += change
        else:
            account.held += change
        return item.account, item.direction, item.amount, account.held, account.incoming

    def _hold_item(self, hold: Hold) -> Item:
        return Item(0, hold.account, "debit", hold.amount)
