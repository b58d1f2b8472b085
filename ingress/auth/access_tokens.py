"""Access tokens: short-lived, signed, verified without a query.

Only one algorithm is accepted, whatever the token's header says. Keys are identified by `kid` and
change daily. A token carries its user's revocation counter; the authenticator refuses an older one.
"""

import time
from typing import Any, Final, NamedTuple

import jwt

from ingress.auth.signing_keys import SigningKeys
from ingress.http.roles import UserRole
from ingress.http.routes import Caller

ALGORITHM: Final = "HS256"
TYPE: Final = "at+jwt"
MAX_LENGTH: Final = 2_048
# The clocks of two ingresses may differ by this much.
LEEWAY_S: Final = 5.0
_REQUIRED: Final = ["exp", "iat", "iss", "sub", "sid", "num", "role", "cnt"]


class Access(NamedTuple):
    caller: Caller
    counter: int
    expires_at: float  # includes the leeway


class AccessTokens:
    def __init__(self, keys: SigningKeys, issuer: str, ttl_s: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self.ttl_s = ttl_s

    def make(self, caller: Caller, counter: int) -> str:
        """`counter` must have been read together with the caller's role."""
        now = time.time()
        kid, key = self._keys.access_key(now)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": caller.id,
            "num": caller.number,
            "role": caller.role.value,
            "sid": caller.session_id,
            "cnt": counter,
            "iat": int(now),
            "exp": int(now) + self.ttl_s,
        }
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid, "typ": TYPE})

    def read(self, token: str) -> Access | None:
        """Returns None for a token that is expired or was not signed by this ledger."""
        if len(token) > MAX_LENGTH:
            return None
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.find_access_key(kid, time.time()) if isinstance(kid, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        caller = Caller(claims["sub"], claims["num"], UserRole(claims["role"]), claims["sid"])
        return Access(caller, claims["cnt"], claims["exp"] + LEEWAY_S)
