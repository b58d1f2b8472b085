"""Who did what over HTTP: rows that are only ever added, in the transaction of what they tell."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from ingress import queries
from ingress.routes import Call


async def note(
    connection: queries.Connection,
    call: Call[Any, Any],
    action: str,
    subject: str | None = None,
    *,
    user_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """`user_id` where the caller is not signed in yet."""
    await queries.run(
        connection,
        "audit_add",
        user_id=user_id or (call.who.id if call.who is not None else None),
        action=action,
        subject=subject,
        address=address(call.request),
        trace=call.trace,
        detail=msgspec.json.encode(detail or {}).decode(),
    )


def address(request: web.Request) -> str | None:
    """The peer's own: what a proxy says of others is not believed here."""
    try:
        return str(ipaddress.ip_address(request.remote or ""))
    except ValueError:
        return None
