"""A schema registry on loopback that answers as Confluent's does, as far as our client asks."""

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeRegistry:
    """What a Confluent-compatible registry answers, as far as the client asks."""

    def __init__(self) -> None:
        self.schemas: dict[int, str] = {}
        self.subjects: dict[str, list[int]] = {}
        self.refused: set[str] = set()
        self.password: str | None = None
        self.requests: list[str] = []
        # Instead of an answer: a status and a body; and what an answer waits for.
        self.instead: tuple[int, bytes] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.protobuf: set[int] = set()

    def add(self, subject: str, schema: str) -> int:
        known = [id for id, text in self.schemas.items() if text == schema]
        id = known[0] if known else 10 + len(self.schemas)
        self.schemas[id] = schema
        if id not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(id)
        return id

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match [method, *path.strip("/").split("/")]:
            case ["GET", "schemas", "ids", id] if int(id) in self.schemas:
                kind = {"schemaType": "PROTOBUF"} if int(id) in self.protobuf else {}
                return 200, {"schema": self.schemas[int(id)], **kind}
            case ["GET", "subjects", subject, "versions"] if subject in self.subjects:
                return 200, list(range(1, len(self.subjects[subject]) + 1))
            case ["GET", "subjects", subject, "versions", version] if subject in self.subjects:
                number = self.subjects[subject][int(version) - 1]
                text = self.schemas[number]
                return 200, {"subject": subject, "id": number, "version": 1, "schema": text}
            case ["POST", "subjects", subject, "versions"]:
                if body["schema"] in self.refused:
                    return 409, {"error_code": 409, "message": "it is incompatible with 1"}
                return 200, {"id": self.add(subject, body["schema"])}
        return 404, {"error_code": 40403, "message": "not found"}


class Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry

    def do_GET(self) -> None:
        registry = self.registry
        registry.requests.append(f"{self.command} {self.path}")
        assert registry.gate.wait(30)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        status, content = registry.instead or (0, b"")
        if not registry.instead:
            given = self.headers.get("Authorization", "Basic ").removeprefix("Basic ")
            if registry.password and b64decode(given).decode() != registry.password:
                status, answer = 401, {"error_code": 401, "message": "who are you?"}
            else:
                status, answer = registry.answer(self.command, self.path, body)
            content = json.dumps(answer).encode()
        # Whoever asked may have given up.
        with suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(fake: FakeRegistry) -> Iterator[str]:
    """The address at which it answers."""
    handler = type("OneHandler", (Handler,), {"registry": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        fake.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
