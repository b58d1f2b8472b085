"""Pipelined COPY: the server accepts the data of the next COPY as soon as it has that of the last.
psycopg's own COPY costs two round trips each, which dominate the time of a small batch.

It knows no table.
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

# psycopg passes libpq no more at once, so that libpq need not grow its buffer.
PART_BYTES: Final = 128 * 1024


class Copy(NamedTuple):
    """A COPY ... FROM STDIN statement and its data."""

    statement: bytes
    data: bytes


def send_copies(
    connection: Connection[TupleRow], copies: Sequence[Copy], after_each: Callable[[], None]
) -> None:
    """Called within a transaction. `after_each` is called after each COPY."""
    if copies:
        connection.wait(_send_copies(connection.pgconn, copies, after_each))


def _send_copies(
    pgconn: PGconn, copies: Sequence[Copy], after_each: Callable[[], None]
) -> PQGen[None]:
    pgconn.send_query(b";".join([copy.statement for copy in copies]))
    yield from send(pgconn)
    for copy in copies:
        yield from _expect(pgconn, ExecStatus.COPY_IN)
        data = memoryview(copy.data)
        for start in range(0, len(data), PART_BYTES):
            yield from copy_to(pgconn, data[start : start + PART_BYTES], len(data) > PART_BYTES)
        while pgconn.put_copy_end() == 0:
            yield WAIT_W
        yield from send(pgconn)
        yield from _expect(pgconn, ExecStatus.COMMAND_OK)
        after_each()
    if (yield from fetch(pgconn)) is not None:
        raise psycopg.InternalError("more results than COPY statements")


def _expect(pgconn: PGconn, status: ExecStatus) -> PQGen[None]:
    result = yield from fetch(pgconn)
    if result is None:
        raise psycopg.InternalError("fewer results than COPY statements")
    if result.status != status:
        raise errors.error_from_result(result)
