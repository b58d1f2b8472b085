"""Tokens for positions that leave the ledger in a status URL or a page cursor, and come back.

Keeps the rule that a token names its ledger and epoch. One of another ledger, or from before a
restore, is refused by name and never read as a current one. It does not know what a position means.
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

    def write(self, position: str = "") -> str:
        prefix = f"{self._ledger}:{self._epoch}"
        return f"{prefix}:{position}" if position else prefix

    def read(self, token: str) -> str | None:
        """The position, or None if the text is not a token. Raises a Problem for a token of another
        ledger or epoch."""
        match = _TOKEN(token)
        if match is None:
            return None
        ledger, epoch, position = match.groups()
        if ledger != self._ledger:
            detail = f"The position belongs to ledger {ledger}; this is ledger {self._ledger}."
            raise HttpProblem(Code.POSITION_OF_ANOTHER_LEDGER, detail)
        if int(epoch) != self._epoch:
            detail = (
                f"The position belongs to epoch {epoch}; this ledger is in epoch {self._epoch}."
            )
            raise HttpProblem(Code.POSITION_OF_ANOTHER_EPOCH, detail)
        return position or ""

    def write_cursor(self, position: str | None) -> str | None:
        return None if position is None else self.write(position)

    def read_cursor(self, token: str | None) -> str | None:
        if token is None:
            return None
        position = self.read(token)
        if not position:
            raise bad_cursor()
        return position

    def read_number(self, token: str | None, default: int) -> int:
        """The cursor of a list that is ordered by a number."""
        position = self.read_cursor(token)
        if position is None:
            return default
        if _NUMBER(position) is None:
            raise bad_cursor()
        return int(position)


def bad_cursor() -> HttpProblem:
    error = FieldError(field="cursor", code="invalid", detail="does not belong to this list")
    return HttpProblem(Code.QUERY_INVALID, errors=[error])
