"""The browser's session cookie, and the CSRF token that proves a request comes from our own pages.

Scripts cannot read the cookie, and other sites cannot read the token. A request that changes
something needs both.
"""

import base64
import binascii
from typing import Final

from aiohttp import web

from ingress.auth.signing_keys import SigningKeys
from ingress.http.problems import Code, HttpProblem
from ingress.http.request_headers import CSRF_HEADER, SESSION_COOKIE

_PURPOSE: Final = "csrf"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE: Final = frozenset({"same-origin", "none"})


def session_token(request: web.Request) -> str | None:
    """Finds the session cookie without parsing the others, which anybody may have set."""
    token = None
    for cookie in request.headers.get("Cookie", "").split(";"):
        name, equals, value = cookie.partition("=")
        if equals and name.strip() == SESSION_COOKIE:
            token = value.strip()
    return token


def set_session(response: web.Response, token: str, ttl_s: int) -> None:
    response.set_cookie(
        SESSION_COOKIE, token, max_age=ttl_s, path="/", secure=True, httponly=True,
        samesite="Strict",
    )  # fmt: skip


def end_session(response: web.Response) -> None:
    response.del_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="Strict")


def csrf_token(keys: SigningKeys, session_id: str) -> str:
    return base64.urlsafe_b64encode(keys.mac(_PURPOSE, session_id.encode())).decode().rstrip("=")


def check_csrf(request: web.Request, keys: SigningKeys, session_id: str) -> None:
    """Raises an HttpProblem if a request authenticated by cookie may come from another site."""
    if request.method in _SAFE:
        return
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _SAME_SITE:
        raise HttpProblem(Code.CSRF_FAILED)
    token = request.headers.get(CSRF_HEADER, "")
    try:
        mac = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error):
        mac = b""
    if not keys.check(_PURPOSE, session_id.encode(), mac):
        raise HttpProblem(Code.CSRF_FAILED)
