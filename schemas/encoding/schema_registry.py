"""A minimal client of any Confluent-compatible schema registry.

Each call ends by its deadline whatever the network does, slow name resolution and slow answers
included. It must not know what a schema is used for.
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
_NOT_FOUND: Final = 404
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryUnreachable(Exception):
    """The registry gave no usable answer in time; a retry may succeed."""


class RegistryRefused(Exception):
    """The registry rejected the request: incompatible or invalid schema, or no permission."""


class SchemaRegistry(Protocol):
    """The port to a schema registry. Each verb may block up to a deadline for each request, and may
    raise RegistryUnreachable or RegistryRefused."""

    def schema(self, id: int) -> str | None:
        """The text of the Avro schema with this id; None if it does not exist."""

    def versions(self, subject: str) -> dict[int, str]:
        """Ids and texts of all versions of the subject; empty if the subject is unknown."""

    def register(self, subject: str, schema: str) -> int:
        """Register the schema if it is new, and return its id. Raises RegistryRefused."""


class HttpRegistry:
    """A registry by its URL: `http` or `https`, optionally with user and password."""

    def __init__(self, url: str, deadline_s: float = 2.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a registry URL must start with http:// or https:// and name a host")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._path = parts.path.rstrip("/")
        self._deadline_s = deadline_s
        self._headers = {"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        self._schemas_by_id: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"HttpRegistry({self._host!r})"

    def schema(self, id: int) -> str | None:
        schema = self._schemas_by_id.get(id)
        if schema is not None:
            return schema
        answer = self._request("GET", f"/schemas/ids/{id}")
        if answer is None or answer.get("schemaType", "AVRO") != "AVRO":
            return None
        return self._keep(id, _text(answer))

    def versions(self, subject: str) -> dict[int, str]:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        found = {}
        for version in self._request("GET", path) or []:
            answer = self._request("GET", f"{path}/{version}")
            if answer is not None and answer.get("schemaType", "AVRO") == "AVRO":
                found[_id(answer)] = self._keep(_id(answer), _text(answer))
        return found

    def register(self, subject: str, schema: str) -> int:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        answer = self._request("POST", path, {"schema": schema})
        if answer is None:
            raise RegistryRefused(f"the registry does not accept the subject {subject}")
        return _id(answer)

    def _keep(self, id: int, text: str) -> str:
        # An id never changes its schema.
        return self._schemas_by_id.setdefault(id, text)

    def _request(self, method: str, path: str, body: object = None) -> Any:
        status, content = _within(self._deadline_s, lambda: self._exchange(method, path, body))
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if status == _NOT_FOUND:
            return None
        message = answer.get("message") if isinstance(answer, dict) else None
        if 400 <= status < 500 and status not in (408, 429):
            raise RegistryRefused(
                f"the registry refused {method} {path}: {status} {message or ''}".rstrip()
            )
        if status != 200 or not isinstance(answer, (dict, list)):
            raise RegistryUnreachable(f"the registry answered {method} {path} with {status}")
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
            raise RegistryUnreachable(f"the registry is unreachable: {error}") from error
        finally:
            connection.close()
        if len(content) > MAX_ANSWER_BYTES:
            raise RegistryUnreachable(
                f"the registry's answer is larger than {MAX_ANSWER_BYTES} bytes"
            )
        return response.status, content


def _text(answer: dict[str, Any]) -> str:
    text = answer.get("schema")
    if not isinstance(text, str):
        raise RegistryUnreachable("the registry's answer has no schema")
    return text


def _id(answer: dict[str, Any]) -> int:
    number = answer.get("id")
    if not isinstance(number, int):
        raise RegistryUnreachable("the registry's answer has no id")
    return number


def _within(deadline_s: float, call: Callable[[], T]) -> T:
    """The call's result within the deadline. A socket timeout bounds each wait, not their sum."""
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
        raise RegistryUnreachable(f"the registry did not answer within {deadline_s} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # without an error there is a value
