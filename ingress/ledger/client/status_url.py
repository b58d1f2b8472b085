"""Where a client polls for what it was not told at once: an address that carries the command's
position in Kafka with its ledger and epoch, signed for who submitted it.

So any ingress can tell a command that nobody has decided yet from one that nobody sent, without
keeping anything. It asks nobody.
"""

import base64
import binascii
import re
from typing import Final

from ingress.auth.signing_keys import Keys
from ingress.http.problems import Code, HttpProblem
from ingress.ledger.client.position_tokens import PositionTokens

Position = tuple[int, int]

MAC_PURPOSE: Final = "command location"
_POSITION: Final = re.compile(r"(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,18})", re.ASCII).fullmatch


class StatusUrls:
    def __init__(self, keys: Keys, positions: PositionTokens, prefix: str) -> None:
        self._keys = keys
        self._positions = positions
        self._path = f"{prefix}/commands/"

    def of(self, owner: str, transaction_id: str, position: Position | None) -> str:
        """Without a position: it is not certain that Kafka has the command."""
        place = "" if position is None else f"{position[0]}:{position[1]}"
        text = self._positions.write(place)
        mac = self._keys.mac(MAC_PURPOSE, _signed(owner, transaction_id, text))
        signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")
        return f"{self._path}{transaction_id}?position={text}&signature={signature}"

    def read(
        self, owner: str, transaction_id: str, text: str, signature: str | None
    ) -> Position | None:
        """The position, None where it is not certain. Raises a Problem for what is of another
        ledger or epoch, and for what was not signed here for this owner."""
        place = self._positions.read(text)
        if place is None or signature is None:
            raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
        try:
            mac = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except (ValueError, binascii.Error):
            mac = b""
        if not self._keys.check(MAC_PURPOSE, _signed(owner, transaction_id, text), mac):
            raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
        found = _POSITION(place)
        return None if found is None else (int(found.group(1)), int(found.group(2)))


def _signed(owner: str, transaction_id: str, text: str) -> bytes:
    return f"{owner}|{transaction_id}|{text}".encode()
