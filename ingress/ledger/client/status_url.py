"""The status URL of a submission: it carries the command's position in Kafka with ledger and epoch,
signed for the caller who submitted it.

So any ingress can tell a command that is not decided yet from one that was never sent, without
storing anything. It needs no database.
"""

import base64
import binascii
import re
from typing import Final

from ingress.auth.signing_keys import SigningKeys
from ingress.http.position_tokens import PositionTokens
from ingress.http.problems import Code, HttpProblem

CommandPosition = tuple[int, int]

MAC_PURPOSE: Final = "command location"
_POSITION: Final = re.compile(r"(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,18})", re.ASCII).fullmatch


class StatusUrls:
    def __init__(self, keys: SigningKeys, tokens: PositionTokens, prefix: str) -> None:
        self._keys = keys
        self._tokens = tokens
        self._path = f"{prefix}/commands/"

    def sign(self, caller_id: str, transaction_id: str, position: CommandPosition | None) -> str:
        """Without a position, it is not certain that Kafka has the command."""
        token = self._tokens.write("" if position is None else f"{position[0]}:{position[1]}")
        mac = self._keys.mac(MAC_PURPOSE, _signed_text(caller_id, transaction_id, token))
        signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")
        return f"{self._path}{transaction_id}?position={token}&signature={signature}"

    def verify(
        self, caller_id: str, transaction_id: str, token: str, signature: str | None
    ) -> CommandPosition | None:
        """The position, or None if it is uncertain. Raises a Problem for another ledger or epoch,
        and for a URL that was not signed for this caller."""
        position = self._tokens.read(token)
        if position is None or signature is None:
            raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
        try:
            mac = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except (ValueError, binascii.Error):
            mac = b""
        if not self._keys.check(MAC_PURPOSE, _signed_text(caller_id, transaction_id, token), mac):
            raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
        match = _POSITION(position)
        return None if match is None else (int(match.group(1)), int(match.group(2)))


def _signed_text(caller_id: str, transaction_id: str, token: str) -> bytes:
    return f"{caller_id}|{transaction_id}|{token}".encode()
