"""Decides what is due: an open hold expires, a transaction past its deadline is rejected."""

from msgspec.structs import replace

from processor.rules import coordinate, holds, journal_header, state_view
from processor.rules.decision import BrokenInvariant, Decision
from processor.rules.postings import DecisionPostings
from schemas import ids
from schemas import state as states


def expire(state: state_view.StateView, key: bytes, time_ms: int) -> Decision:
    due = state.get(key)
    if not isinstance(due, states.Due):
        raise BrokenInvariant(f"nothing is due under {key.hex()}")
    header = journal_header.for_expiry(state, time_ms)
    id = ids.to_text(key[-16:])
    if due.what == "pending":
        return coordinate.time_out(state, header, id)
    hold = state_view.hold(state, id)
    if hold is None or hold.status != "open":
        raise BrokenInvariant(f"hold {id} is due but is not open")
    postings = DecisionPostings(state)
    postings.release(hold.account, "debit", hold.amount)
    return Decision(
        replace(
            header,
            step="expired",
            transaction_id=id,
            hold=holds.changed(id, hold, "expired"),
            released=tuple(postings.released),
        )
    )
