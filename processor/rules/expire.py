"""What came due: an open hold expires, a transaction that waits too long for others is rejected."""

from msgspec.structs import replace

from processor.rules import coordinate, holds, state_view
from processor.rules.books import DecisionPostings
from processor.rules.decision import BrokenInvariant, Decision
from processor.rules.journal_header import expiry_header
from schemas import ids
from schemas import state as states


def expire(of: state_view.StateView, key: bytes, time_ms: int) -> Decision:
    due = of.get(key)
    if not isinstance(due, states.Due):
        raise BrokenInvariant(f"nothing is due under {key.hex()}")
    head = expiry_header(of, time_ms)
    id = ids.to_text(key[-16:])
    if due.what == "pending":
        return coordinate.time_out(of, head, id)
    hold = state_view.hold(of, id)
    if hold is None or hold.status != "open":
        raise BrokenInvariant(f"hold {id} is due but is not open")
    books = DecisionPostings(of)
    books.release(hold.account, "debit", hold.amount)
    return Decision(
        replace(
            head,
            step="expired",
            transaction_id=id,
            hold=holds.changed(id, hold, "expired"),
            released=tuple(books.released),
        )
    )
