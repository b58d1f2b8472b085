"""Keys derived from SIGNING_KEY, for everything that clients carry and send back.

Each purpose has its own key, so a signature for one purpose is invalid for another. Access tokens
use a new key each day, identified by `kid`. SIGNING_KEY_PREVIOUS is still accepted, so SIGNING_KEY
can be rotated while users are signed in.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from functools import cache
from typing import Final

import structlog

from ingress.settings import IngressSettings

DAY_S: Final = 24 * 3_600

log = structlog.stdlib.get_logger(__name__)


class SigningKeys:
    """The first master key signs; signatures of all are accepted."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._masters = {_derive(each, b"name").hex()[:8]: each for each in masters}
        self._current = next(iter(self._masters))

    @classmethod
    def from_settings(cls, settings: IngressSettings) -> "SigningKeys":
        configured = [settings.signing_key, settings.signing_key_previous]
        masters = [each.get_secret_value().encode() for each in configured if each is not None]
        if settings.signing_key is None:
            log.warning(
                "SIGNING_KEY is not set: access tokens and cookies become invalid at the next start"
            )
            masters.insert(0, secrets.token_bytes(32))
        return cls(masters)

    def mac(self, purpose: str, data: bytes) -> bytes:
        return _mac(self._masters[self._current], purpose, data)

    def check(self, purpose: str, data: bytes, mac: bytes) -> bool:
        masters = self._masters.values()
        return any(hmac.compare_digest(_mac(each, purpose, data), mac) for each in masters)

    def access_key(self, now_s: float) -> tuple[str, bytes]:
        """The id and the key that sign access tokens at that time."""
        kid = f"{self._current}-{int(now_s) // DAY_S}"
        return kid, self._access(kid, self._current)

    def find_access_key(self, kid: str, now_s: float) -> bytes | None:
        """Returns None if no key of that id is accepted now."""
        name, _, day = kid.partition("-")
        today = int(now_s) // DAY_S
        # Access tokens live at most a day; clocks may differ at midnight.
        if name not in self._masters or day not in (str(today), str(today - 1), str(today + 1)):
            return None
        return self._access(kid, name)

    def _access(self, kid: str, name: str) -> bytes:
        return _derive(self._masters[name], b"access " + kid.encode())


@cache
def _derive(master: bytes, purpose: bytes) -> bytes:
    return hmac.digest(master, b"streamledger " + purpose, hashlib.sha256)


def _mac(master: bytes, purpose: str, data: bytes) -> bytes:
    return hmac.digest(_derive(master, purpose.encode()), data, hashlib.sha256)
