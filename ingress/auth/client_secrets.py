"""Secrets held by clients: refresh tokens, cookies, API keys. Random; only hashes are stored.

Each starts with a prefix for its kind, and the hash covers the prefix, so no secret can be used as
another kind.
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
    """The refresh token that replaces `token`. Only the same client derives the same one."""
    mac = hmac.digest(token.encode(), salt + client, hashlib.sha256)
    return REFRESH + base64.urlsafe_b64encode(mac).decode().rstrip("=")


def salt() -> bytes:
    return secrets.token_bytes(16)


def is_well_formed(text: str, kind: str) -> bool:
    """Whether it can be such a secret. Anything else needs no query."""
    return len(text) == _LENGTH and text.startswith(kind) and text.isascii()


def hashed(token: str) -> bytes:
    # The secret is random, so a slow hash adds no protection.
    return hashlib.sha256(token.encode()).digest()
