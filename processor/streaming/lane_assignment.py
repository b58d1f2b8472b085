"""Which member of the group gets which lanes: each has one owner, and nobody two more than another.

Of all ways to share them out evenly it takes one in which the members have most on their disks of
what they get, and then one that moves least. It depends on nothing but what it is given: whoever
shares out, the shares are the same. It must not know Faust.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class MemberState(NamedTuple):
    """What a member has to do with which lanes. Lanes that do not exist count for nothing."""

    owned: frozenset[int] = frozenset()
    # How many records its copy on disk has of each.
    copies: Mapping[int, int] = {}


def shares(lanes: int, stakes: Mapping[str, MemberState]) -> dict[str, list[int]]:
    """The lanes of each member."""
    members = sorted(stakes)
    least, more = divmod(lanes, len(members))
    # Everyone's first places are taken by all means; a last one, where not all have one more.
    places = [(member, True) for member in members for _ in range(least)]
    places += [(member, False) for member in members if more]
    worth = [
        {member: _worth(stakes[member], lane, lanes) for member in members} for lane in range(lanes)
    ]
    # More than what all lanes together can be worth.
    must = 1 + sum(max(each.values()) for each in worth)
    found = _cheapest(
        [[-each[member] - must * first for member, first in places] for each in worth]
    )
    given: dict[str, list[int]] = {member: [] for member in members}
    for lane, place in enumerate(found):
        given[places[place][0]].append(lane)
    return given


def _worth(stake: MemberState, lane: int, lanes: int) -> int:
    """One record on a disk is more than all that stay where they are."""
    return stake.copies.get(lane, 0) * (lanes + 1) + (lane in stake.owned)


def _cheapest(costs: Sequence[Sequence[int]]) -> Iterable[int]:
    """The column of each row, none of them twice, for which all rows together cost least.

    The Hungarian method: row after row finds a place by the cheapest chain of rows that make way
    for each other. Each row and column has a price, so that no step of a chain costs less than 0.
    """
    rows, columns = len(costs), len(costs[0])
    # Where a row waits for its place: no column of its own.
    waiting = columns
    holder: list[int | None] = [None] * (columns + 1)
    row_price, column_price = [0] * rows, [0] * (columns + 1)
    for newcomer in range(rows):
        holder[waiting] = newcomer
        at = waiting
        left = set(range(columns))
        passed: list[tuple[int, int]] = []
        cost: list[float] = [math.inf] * columns
        before = [waiting] * columns
        while (row := holder[at]) is not None:
            passed.append((at, row))
            for column in left:
                step = costs[row][column] - row_price[row] - column_price[column]
                if step < cost[column]:
                    cost[column], before[column] = step, at
            # Of equals one that is free: nobody need make way.
            nearest = min(left, key=lambda each: (cost[each], holder[each] is not None, each))
            dearer = int(cost[nearest])
            for column, held_by in passed:
                row_price[held_by] += dearer
                column_price[column] -= dearer
            left.remove(nearest)
            for column in left:
                cost[column] -= dearer
            at = nearest
        while at != waiting:
            holder[at] = holder[before[at]]
            at = before[at]
    place = {row: column for column, row in enumerate(holder[:columns]) if row is not None}
    return [place[row] for row in range(rows)]
