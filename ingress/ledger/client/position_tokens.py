"""Positions that leave the ledger in a status location or a page cursor, and come back.

Keeps the rule that each names its ledger and epoch, so that one of another ledger, or of an epoch
before a restore, is refused by name and never read as a current one. It does not know what a
position points at.
"""

import re
from typing import Final

from ingress.http.problems import Code, FieldError, HttpProblem
from schemas import ids

_TOKEN: Final = re.compile(
    r"([A-Za-z0-9._-]{1,64}):([1-9][0-9]{0,8})(?::([A-Za-z0-9_:-]+))?"
).fullmatch

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII).fullmatch


class PositionTokens:
    def __init__(self, ledger: str, epoch: int = ids.EPOCH) -> None:
        self._ledger = ledger
        self._epoch = epoch

    def write(self, inner: str = "") -> str:
        named = f"{self._ledger}:{self._epoch}"
        return f"{named}:{inner}" if inner else named

    def read(self, text: str) -> str | None:
        """What was written. None: it is not a position. Raises a Problem for one that is not of
        this ledger and epoch."""
        found = _TOKEN(text)
        if found is None:
            return None
        ledger, epoch, inner = found.groups()
        if ledger != self._ledger:
            words = f"It is of the ledger {ledger}, and this is {self._ledger}."
            raise HttpProblem(Code.POSITION_OF_ANOTHER_LEDGER, words)
        if int(epoch) != self._epoch:
            words = f"It is of epoch {epoch}, and this ledger is in epoch {self._epoch}."
            raise HttpProblem(Code.POSITION_OF_ANOTHER_EPOCH, words)
        return inner or ""

    def cursor(self, inner: str | None) -> str | None:
        """As a page gives it."""
        return None if inner is None else self.write(inner)

    def inner_cursor(self, text: str | None) -> str | None:
        """As a page was asked for by it."""
        if text is None:
            return None
        inner = self.read(text)
        if not inner:
            raise bad_cursor()
        return inner

    def number(self, text: str | None, first: int) -> int:
        """Of a list that is in the order of a number."""
        inner = self.inner_cursor(text)
        if inner is None:
            return first
        if _NUMBER(inner) is None:
            raise bad_cursor()
        return int(inner)


def bad_cursor() -> HttpProblem:
    error = FieldError(field="cursor", code="invalid", detail="does not belong to this list")
    return HttpProblem(Code.QUERY_INVALID, errors=[error])
