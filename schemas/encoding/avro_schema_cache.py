"""The Avro schemas that a reader knows: our published ones, the registry's, and those on disk.

A registry outage stops nothing. An unknown id is requested once, within a deadline, and not again
until a pause has passed. A flood of unknown ids costs a few requests per pause, not one each.
"""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from schemas.encoding import avro
from schemas.encoding.schema_registry import RegistryRefused, RegistryUnreachable, SchemaRegistry

PUBLISHED: Final = Path(__file__).parents[1] / "published" / "versions"
MAX_REQUESTS_PER_PAUSE: Final = 20


class SchemaUnknown(Exception):
    """No schema has this id or fingerprint, or the schema is unusable."""


class AvroSchemas:
    """`folder` belongs to one registry: schema ids of two registries would collide."""

    def __init__(
        self,
        folder: Path | None = None,
        registry: SchemaRegistry | None = None,
        *,
        pause_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._by_id: dict[int, avro.Schema] = {}
        self._by_fingerprint: dict[bytes, avro.Schema] = {}
        self._unusable: dict[int, str] = {}
        self._requested: set[int] = set()
        self._pause_ends = 0.0
        self._unreachable = False
        for path in sorted(PUBLISHED.glob("*.avsc")):
            schema = avro.parse(path.read_text("utf-8"))
            self._by_fingerprint[schema.fingerprint] = schema

    def load(self, subjects: Iterable[str]) -> str | None:
        """Load the schemas on disk, then the registry's; return the registry's error, if any."""
        with self._lock:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                for path in self._folder.glob("*.avsc"):
                    if path.stem.isdecimal():
                        self._take(int(path.stem), path.read_text("utf-8"))
            if self._registry is None:
                return None
            try:
                for subject in subjects:
                    for id, text in self._registry.versions(subject).items():
                        self._take(id, text)
                        self._keep(id, text)
            except (RegistryUnreachable, RegistryRefused) as error:
                return str(error)
            return None

    def by_id(self, id: int) -> avro.Schema:
        schema = self._by_id.get(id)
        if schema is not None:
            return schema
        with self._lock:
            if id not in self._by_id and id not in self._unusable:
                self._fetch(id)
            if id in self._by_id:
                return self._by_id[id]
            raise SchemaUnknown(self._unusable.get(id, f"unknown schema id {id}"))

    def by_fingerprint(self, fingerprint: bytes) -> avro.Schema:
        schema = self._by_fingerprint.get(fingerprint)
        if schema is None:
            raise SchemaUnknown(f"unknown schema fingerprint {fingerprint.hex()}")
        return schema

    def registered(self, subject: str, schema: avro.Schema) -> int:
        """The id to write with: from the registry or, while it is unreachable, from disk.
        May raise RegistryUnreachable or RegistryRefused."""
        with self._lock:
            if self._registry is None:
                raise RegistryUnreachable("no schema registry is configured")
            try:
                id = self._registry.register(subject, schema.text)
            except RegistryUnreachable:
                for known_id, known_schema in self._by_id.items():
                    if known_schema.fingerprint == schema.fingerprint:
                        return known_id
                raise
            self._take(id, schema.text)
            self._keep(id, schema.text)
            return id

    def _fetch(self, id: int) -> None:
        if self._registry is None:
            return
        now = self._clock()
        if now >= self._pause_ends:
            self._requested.clear()
            self._unreachable = False
            self._pause_ends = now + self._pause_s
        if (
            self._unreachable
            or id in self._requested
            or len(self._requested) >= MAX_REQUESTS_PER_PAUSE
        ):
            return
        self._requested.add(id)
        try:
            text = self._registry.schema(id)
        except (RegistryUnreachable, RegistryRefused):
            self._unreachable = True
            # The pause starts when the request fails.
            self._pause_ends = self._clock() + self._pause_s
            return
        if text is not None:
            self._take(id, text)
            self._keep(id, text)

    def _take(self, id: int, text: str) -> None:
        """Add a schema. The registry is read after the disk, so the registry wins."""
        try:
            schema = avro.parse(text)
        except avro.Unusable as unusable:
            self._by_id.pop(id, None)
            self._unusable[id] = f"schema id {id} is unusable: {unusable}"
            return
        self._by_id[id] = schema
        self._by_fingerprint.setdefault(schema.fingerprint, schema)

    def _keep(self, id: int, text: str) -> None:
        if self._folder is None:
            return
        path = self._folder / f"{id}.avsc"
        if not path.exists() or path.read_text("utf-8") != text:
            new = path.with_suffix(".new")
            new.write_text(text, "utf-8")
            new.replace(path)
