"""E-mail addresses: one form for all spellings of an address, and no look-alikes.

The part before the @ must be ASCII, as nearly all mailboxes are, so no letter of another script can
imitate an ASCII letter. An international domain is converted to its ASCII form.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

MAX_LENGTH = 254
MAX_LABEL = 63
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # the separators of IDNA
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def parse_email(text: str) -> str | None:
    """The address as it is stored, or None if invalid. Look-ups ignore case."""
    local, at, domain = text.strip(" ").rpartition("@")
    if not at or not 1 <= len(local) <= 64 or not _LOCAL.fullmatch(local):
        return None
    # Check the length first: encoding takes time quadratic in it.
    if len(domain) > MAX_LENGTH or max(map(len, _DOTS.split(domain))) > MAX_LABEL:
        return None
    try:
        ascii_domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        return None
    if not _DOMAIN.fullmatch(ascii_domain) or len(local) + 1 + len(ascii_domain) > MAX_LENGTH:
        return None
    return f"{local}@{ascii_domain}"


def _required(text: str) -> str:
    email = parse_email(text)
    if email is None:
        raise PydanticCustomError("email_invalid", "is not a valid e-mail address")
    return email


Email = Annotated[
    str,
    Field(max_length=MAX_LENGTH, json_schema_extra={"format": "email"}),
    AfterValidator(_required),
]
