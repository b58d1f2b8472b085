"""Several COPYs in one go: the server asks for the data of the next one as soon as it has that of
the last. psycopg's own way costs two round trips for each of them, which is what a small batch
takes its time for.

It knows no table, and not what it sends.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg
from psycopg import Connection, errors
from psycopg.abc import PQGen
from psycopg.generators import copy_to, fetch, send
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow
from psycopg.waiting import WAIT_W

# psycopg never gives libpq more at once, which would have to grow its buffer.
PART_BYTES: Final = 128 * 1024


class Copy(NamedTuple):
    """COPY ... FROM STDIN, and all that it reads."""

    statement: bytes
    data: bytes


def send_copies(
    connection: Connection[TupleRow], copies: Sequence[Copy], between: Callable[[], None]
) -> None:
    """Within a transaction that has begun. `between` is called as each of them is done."""
    if copies:
        connection.wait(_send_copies(connection.pgconn, copies, between))


def _send_copies(
    pgconn: PGconn, copies: Sequence[Copy], between: Callable[[], None]
) -> PQGen[None]:
    pgconn.send_query(b";".join([each.statement for each in copies]))
    yield from send(pgconn)
    for each in copies:
        yield from _expect(pgconn, ExecStatus.COPY_IN)
        data = memoryview(each.data)
        for start in range(0, len(data), PART_BYTES):
            yield from copy_to(pgconn, data[start : start + PART_BYTES], len(data) > PART_BYTES)
        while pgconn.put_copy_end() == 0:
            yield WAIT_W
        yield from send(pgconn)
        yield from _expect(pgconn, ExecStatus.COMMAND_OK)
        between()
    if (yield from fetch(pgconn)) is not None:
        raise psycopg.InternalError("there are more results than there were COPYs")


def _expect(pgconn: PGconn, status: ExecStatus) -> PQGen[None]:
    result = yield from fetch(pgconn)
    if result is None:
        raise psycopg.InternalError("there are fewer results than there were COPYs")
    if result.status != status:
        raise errors.error_from_result(result)
