"""Rows of the audit log: who did what over HTTP.

Rows are only ever inserted, in the transaction of the change or, for commands, before they are sent
to Kafka.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ingress.http.client_address import address_of
from ingress.http.routes import Call, Caller
from ingress.sql import queries


class Event(Struct, frozen=True, kw_only=True):
    """A row of the log. `count` events of one kind may share it."""

    action: str
    user_id: str | None = None
    key_id: str | None = None
    subject: str | None = None
    address: str | None = None
    trace: str | None = None
    detail: Mapping[str, Any] = {}
    count: int = 1


async def note(
    connection: queries.Connection,
    call: Call[Any, Any],
    action: str,
    subject: str | None = None,
    *,
    user_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Records what a request did. Pass `user_id` if the caller is not signed in yet."""
    await add(connection, [event(call, action, subject, user_id=user_id, detail=detail)])


def event(
    call: Call[Any, Any],
    action: str,
    subject: str | None = None,
    *,
    user_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Event:
    caller: Caller | None = call.authenticated
    return Event(
        action=action,
        user_id=user_id or (caller.id if caller is not None else None),
        key_id=caller.key_id if caller is not None else None,
        subject=subject,
        address=address_of(call.request),
        trace=call.trace,
        detail=detail or {},
    )


async def add(connection: queries.Connection, events: Sequence[Event]) -> None:
    await queries.run(connection, "audit_add", rows=msgspec.json.encode(events).decode())
