"""Access tokens: short-lived, signed, read without asking anybody.

One algorithm, whatever a token says of itself; keys by their id, a new one each day. What was ended
before its time is for the guard to know.
"""

import time
from typing import Any, Final, NamedTuple

import jwt

from ingress.roles import Role
from ingress.routes import Caller
from ingress.signing import Keys

ALGORITHM: Final = "HS256"
TYPE: Final = "at+jwt"
MAX_LENGTH: Final = 2_048
_REQUIRED: Final = ["exp", "iat", "iss", "sub", "sid", "num", "role"]


class Access(NamedTuple):
    caller: Caller
    made_at: float
    expires_at: float


class AccessTokens:
    def __init__(self, keys: Keys, issuer: str, ttl_s: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self.ttl_s = ttl_s

    def make(self, caller: Caller) -> str:
        now = time.time()
        kid, key = self._keys.access_key(now)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": caller.id,
            "num": caller.number,
            "role": caller.role.value,
            "sid": caller.session_id,
            # To the microsecond: what comes right after an ending must not seem older.
            "iat": round(now, 6),
            "exp": int(now) + self.ttl_s,
        }
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid, "typ": TYPE})

    def read(self, token: str) -> Access | None:
        """None: not one of ours, or expired."""
        if len(token) > MAX_LENGTH:
            return None
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.access_key_of(kid, time.time()) if isinstance(kid, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                options={"require": _REQUIRED},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        caller = Caller(claims["sub"], claims["num"], Role(claims["role"]), claims["sid"])
        return Access(caller, float(claims["iat"]), float(claims["exp"]))
