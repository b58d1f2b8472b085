"""A client of any Confluent-compatible schema registry, as small as its port.

Each call ends by its deadline whatever the network does, in name resolution and slow answers too.
Must not know what a schema is used for.
"""

import json
import queue
import threading
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

T = TypeVar("T")

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_NO_SUCH_THING: Final = 404
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryAway(Exception):
    """The registry gave no answer that could be used, in time; it may later."""


class RegistryRefused(Exception):
    """The registry said no: the schema is not compatible or not valid, or the caller may not."""


class SchemaRegistry(Protocol):
    """Where Avro schemas have numbers. Each verb may block up to a deadline for each question it
    asks, and may raise RegistryAway or RegistryRefused."""

    def schema(self, id: int) -> str | None:
        """The text of the Avro schema with this id; None if there is none."""

    def versions(self, subject: str) -> dict[int, str]:
        """Ids and texts of all versions of the subject; empty if there is no such subject."""

    def register(self, subject: str, schema: str) -> int:
        """The id of the schema, registered if it was not. Refused where it is not compatible."""


class HttpRegistry:
    """A registry by its URL: `http` or `https`, user and password in it where it wants them."""

    def __init__(self, url: str, deadline_s: float = 2.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a registry's URL begins with http:// or https:// and names a host")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._deadline_s = deadline_s
        self._headers = {"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        self._known: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"HttpRegistry({self._host!r})"

    def schema(self, id: int) -> str | None:
        known = self._known.get(id)
        if known is not None:
            return known
        answer = self._ask("GET", f"/schemas/ids/{id}")
        if answer is None or answer.get("schemaType", "AVRO") != "AVRO":
            return None
        return self._keep(id, _text(answer))

    def versions(self, subject: str) -> dict[int, str]:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        found = {}
        for version in self._ask("GET", path) or []:
            answer = self._ask("GET", f"{path}/{version}")
            if answer is not None and answer.get("schemaType", "AVRO") == "AVRO":
                found[_id(answer)] = self._keep(_id(answer), _text(answer))
        return found

    def register(self, subject: str, schema: str) -> int:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        answer = self._ask("POST", path, {"schema": schema})
        if answer is None:
            raise RegistryRefused(f"the registry has no place for the subject {subject}")
        return _id(answer)

    def _keep(self, id: int, text: str) -> str:
        # An id means one schema for ever.
        return self._known.setdefault(id, text)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        status, content = _within(self._deadline_s, lambda: self._exchange(method, path, body))
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if status == _NO_SUCH_THING:
            return None
        said = answer.get("message") if isinstance(answer, dict) else None
        if 400 <= status < 500 and status not in (408, 429):
            raise RegistryRefused(
                f"the registry refused {method} {path}: {status} {said or ''}".rstrip()
            )
        if status != 200 or not isinstance(answer, (dict, list)):
            raise RegistryAway(f"the registry answered {method} {path} with {status}")
        return answer

    def _exchange(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=self._deadline_s)
        try:
            connection.request(
                method,
                self._path + path,
                None if body is None else json.dumps(body),
                self._headers,
            )
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException, UnicodeError) as error:
            raise RegistryAway(f"the registry is away: {error}") from error
        finally:
            connection.close()
        if len(content) > MAX_ANSWER_BYTES:
            raise RegistryAway(f"the registry's answer is larger than {MAX_ANSWER_BYTES} bytes")
        return response.status, content


def _text(answer: dict[str, Any]) -> str:
    text = answer.get("schema")
    if not isinstance(text, str):
        raise RegistryAway("the registry's answer has no schema")
    return text


def _id(answer: dict[str, Any]) -> int:
    number = answer.get("id")
    if not isinstance(number, int):
        raise RegistryAway("the registry's answer has no id")
    return number


def _within(deadline_s: float, call: Callable[[], T]) -> T:
    """The call's outcome, if it comes in time. A socket's time-out bounds each wait, not all."""
    outcome: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=run, name="registry", daemon=True).start()
    try:
        value, error = outcome.get(timeout=deadline_s)
    except queue.Empty:
        raise RegistryAway(f"the registry gave no answer in {deadline_s} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # without an error there is a value
