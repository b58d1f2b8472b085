"""The request headers that several routes share: how long to wait, the idempotency key, and those
of a browser session. It does not know what is waited for.
"""

import re
from typing import ClassVar, Final

from aiohttp import web
from pydantic import Field

from ingress.http.routes import Query

KEY_HEADER: Final = "Idempotency-Key"
SESSION_COOKIE: Final = "ledger_session"
CSRF_HEADER: Final = "X-CSRF-Token"
DEFAULT_WAIT_S: Final = 2.0
MAX_WAIT_S: Final = 30
_match_wait = re.compile(r"wait=([0-9]{1,4})\Z").match


class WaitHeaders(Query):
    """For the API docs; `wait_s` reads the header."""

    waits: ClassVar[bool] = True

    prefer: str | None = Field(
        default=None,
        alias="Prefer",
        description="`wait=N` waits up to N seconds for the outcome, 2 by default;"
        " `respond-async` does not wait.",
    )


class WaitQuery(Query):
    waits: ClassVar[bool] = True

    wait: int = Field(
        default=0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the outcome."
    )


def wait_s(request: web.Request) -> float:
    """From the header `Prefer`; unknown preferences are ignored."""
    prefer = request.headers.get("Prefer")
    if prefer is None:
        return DEFAULT_WAIT_S
    wait_header, at_once = None, False
    for part in prefer.lower().replace(" ", "").split(","):
        if part == "respond-async":
            at_once = True
        elif match := _match_wait(part):
            wait_header = min(int(match.group(1)), MAX_WAIT_S)
    if wait_header is None:
        return 0.0 if at_once else DEFAULT_WAIT_S
    return float(wait_header)
