"""Which member of the group gets which lanes: each lane has one owner, and no member has two more
lanes than another.

Of all even assignments it picks one in which members have the most records of their lanes on disk,
and among those one that moves the fewest lanes. It depends on its arguments alone: every member
computes the same. It must not know Faust.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class MemberState(NamedTuple):
    """What a member has of which lanes. Lanes that do not exist count for nothing."""

    owned: frozenset[int] = frozenset()
    # How many records of each lane its local copy has.
    records: Mapping[int, int] = {}


def assign_lanes(lanes: int, members: Mapping[str, MemberState]) -> dict[str, list[int]]:
    """The lanes of each member."""
    names = sorted(members)
    share, remainder = divmod(lanes, len(names))
    # A member's first places must be filled; its last one need not, if not all get one more.
    places = [(name, True) for name in names for _ in range(share)]
    places += [(name, False) for name in names if remainder]
    values = [{name: _value(members[name], lane, lanes) for name in names} for lane in range(lanes)]
    # More than all lanes together can be worth.
    required = 1 + sum(max(lane_values.values()) for lane_values in values)
    columns = _cheapest_columns(
        [
            [-lane_values[name] - required * must_fill for name, must_fill in places]
            for lane_values in values
        ]
    )
    assigned: dict[str, list[int]] = {name: [] for name in names}
    for lane, place in enumerate(columns):
        assigned[places[place][0]].append(lane)
    return assigned


def _value(member: MemberState, lane: int, lanes: int) -> int:
    """One record on disk outweighs all lanes that stay where they are."""
    return member.records.get(lane, 0) * (lanes + 1) + (lane in member.owned)


def _cheapest_columns(costs: Sequence[Sequence[int]]) -> Iterable[int]:
    """One column for each row, none of them twice, at the least total cost.

    The Hungarian method: each row in turn finds a column by the cheapest chain of rows that make
    way for each other. Rows and columns have prices, so that no step of a chain costs less than 0.
    """
    rows, columns = len(costs), len(costs[0])
    # A row without a column holds this one.
    waiting = columns
    holder: list[int | None] = [None] * (columns + 1)
    row_price, column_price = [0] * rows, [0] * (columns + 1)
    for newcomer in range(rows):
        holder[waiting] = newcomer
        at = waiting
        unvisited = set(range(columns))
        visited: list[tuple[int, int]] = []
        cost: list[float] = [math.inf] * columns
        previous = [waiting] * columns
        while (row := holder[at]) is not None:
            visited.append((at, row))
            for column in unvisited:
                step = costs[row][column] - row_price[row] - column_price[column]
                if step < cost[column]:
                    cost[column], previous[column] = step, at
            # Among equals a free column: then no row has to make way.
            nearest = min(unvisited, key=lambda at: (cost[at], holder[at] is not None, at))
            increase = int(cost[nearest])
            for column, held_by in visited:
                row_price[held_by] += increase
                column_price[column] -= increase
            unvisited.remove(nearest)
            for column in unvisited:
                cost[column] -= increase
            at = nearest
        while at != waiting:
            holder[at] = holder[previous[at]]
            at = previous[at]
    column_of = {row: column for column, row in enumerate(holder[:columns]) if row is not None}
    return [column_of[row] for row in range(rows)]
