"""Secrets that clients keep: refresh tokens, cookies, API keys. Random, and kept as hashes only.

Each begins with what it is, and the hash is of all of it: none can be used as another.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final

REFRESH: Final = "slr_"
COOKIE: Final = "slc_"
API_KEY: Final = "slk_"
_LENGTH: Final = len(REFRESH) + 43


def new_secret(kind: str) -> str:
    return kind + secrets.token_urlsafe(32)


def next_refresh_token(token: str, salt: bytes, client: bytes) -> str:
    """The refresh token that replaces one. Only the client that holds that one gets the same."""
    mac = hmac.digest(token.encode(), salt + client, hashlib.sha256)
    return REFRESH + base64.urlsafe_b64encode(mac).decode().rstrip("=")


def salt() -> bytes:
    return secrets.token_bytes(16)


def is_well_formed(text: str, kind: str) -> bool:
    """Whether it can be one: what cannot is not looked for."""
    return len(text) == _LENGTH and text.startswith(kind) and text.isascii()


def hashed(token: str) -> bytes:
    # Random enough that a slow hash adds nothing.
    return hashlib.sha256(token.encode()).digest()
