"""The postings of one decision: entries and reservations, each with the account totals after it.

All checks have passed, so nothing here can be refused. It must not know any kind of command.
"""

from processor.rules import checks, state_view
from schemas import ids, journal
from schemas.coordination import CoordinatedEntry
from schemas.field_types import Direction
from schemas.state import AccountState

_RAISED_BY_DEBIT = "funding"


class DecisionPostings:
    """Release first, then reserve, then post: the order in which the journal lists them."""

    __slots__ = ("_state", "_totals", "accounts", "entries", "net", "released", "reserved")

    def __init__(self, state: state_view.StateView) -> None:
        self._state = state
        self._totals: dict[str, _Totals] = {}
        self.accounts: dict[str, AccountState] = {}
        self.released: list[journal.Reservation] = []
        self.reserved: list[journal.Reservation] = []
        self.entries: list[journal.Entry] = []
        # Debits minus credits posted so far.
        self.net = 0

    def _account(self, id: str) -> "_Totals":
        totals = self._totals.get(id)
        if totals is None:
            account = state_view.account(self._state, id)
            assert account is not None, "each entry is on a checked account"
            self.accounts[id] = account
            totals = self._totals[id] = _Totals(account)
        return totals

    def _reservation(
        self, id: str, direction: Direction, amount: int, sign: int
    ) -> journal.Reservation:
        totals = self._account(id)
        if checks.is_outgoing(totals.type, direction):
            totals.held += sign * amount
        else:
            totals.incoming += sign * amount
        assert totals.held >= 0 and totals.incoming >= 0, "no more is released than was reserved"
        return journal.Reservation(id, direction, amount, totals.held, totals.incoming)

    def release(self, id: str, direction: Direction, amount: int) -> None:
        self.released.append(self._reservation(id, direction, amount, -1))

    def reserve(self, id: str, direction: Direction, amount: int) -> None:
        self.reserved.append(self._reservation(id, direction, amount, 1))

    def post(self, id: str, direction: Direction, amount: int) -> None:
        self.net += amount if direction == "debit" else -amount
        if ids.is_system(id):
            self._post_system(id, direction, amount)
            return
        totals = self._account(id)
        if checks.is_outgoing(totals.type, direction):
            totals.balance -= amount
        else:
            totals.balance += amount
        totals.version += 1
        self.entries.append(
            journal.Entry(
                id, direction, amount, totals.balance, totals.version, totals.held, totals.incoming
            )
        )

    def _post_system(self, shard: str, direction: Direction, amount: int) -> None:
        """At most once per shard and decision, so no running totals are needed."""
        before = state_view.system_account(self._state, shard)
        raised = (direction == "debit") is (shard.split(":", 2)[1] == _RAISED_BY_DEBIT)
        balance = int(before.balance) + (amount if raised else -amount)
        self.entries.append(
            journal.Entry(shard, direction, amount, str(balance), before.version + 1)
        )

    def post_all(self, entries: tuple[CoordinatedEntry, ...]) -> None:
        for entry in entries:
            self.post(entry.account, entry.direction, entry.amount)

    def balance_by_transit(self, currency: str) -> None:
        """Balance this partition's entries: the difference is in transit to or from another."""
        if self.net:
            shard = ids.system_shard(ids.TRANSIT, currency, self._state.partition.partition)
            self.post(shard, "credit" if self.net > 0 else "debit", abs(self.net))


class _Totals:
    __slots__ = ("balance", "held", "incoming", "type", "version")

    def __init__(self, account: AccountState) -> None:
        self.type = account.type
        self.balance = account.balance
        self.held = account.held
        self.incoming = account.incoming
        self.version = account.version
