"""Where a client polls for what it was not told at once: an address that carries the command's
position in Kafka, signed for who submitted it.

So any ingress can tell a command that nobody has decided yet from one that nobody sent, without
keeping anything. It asks nobody.
"""

import base64
import binascii
import re
from typing import Final

from ingress.signing import Keys

Position = tuple[int, int]

PURPOSE: Final = "command location"
POSITION: Final = r"^(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,18})\Z"

_POSITION = re.compile(POSITION)


class Locations:
    def __init__(self, keys: Keys, prefix: str) -> None:
        self._keys = keys
        self._path = f"{prefix}/commands/"

    def of(self, owner: str, transaction_id: str, position: Position | None) -> str:
        """Without a position: it is not certain that Kafka has the command."""
        place = "" if position is None else f"{position[0]}:{position[1]}"
        mac = self._keys.mac(PURPOSE, _signed(owner, transaction_id, place))
        signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")
        known = f"position={place}&" if place else ""
        return f"{self._path}{transaction_id}?{known}signature={signature}"

    def is_ours(self, owner: str, transaction_id: str, place: str, signature: str) -> bool:
        try:
            mac = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except (ValueError, binascii.Error):
            return False
        return self._keys.check(PURPOSE, _signed(owner, transaction_id, place), mac)


def position(place: str) -> Position | None:
    found = _POSITION.match(place)
    return None if found is None else (int(found.group(1)), int(found.group(2)))


def _signed(owner: str, transaction_id: str, place: str) -> bytes:
    return f"{owner}|{transaction_id}|{place}".encode()
