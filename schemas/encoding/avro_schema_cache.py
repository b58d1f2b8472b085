"""The Avro schemas that a reader knows: our published ones, the registry's, those kept on disk.

A registry that is away stops nothing. An unknown id is asked for once, by its deadline, and then
not again for a pause; a flood of unknown ids costs a few questions for each pause, not one each.
"""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from schemas.encoding import avro
from schemas.encoding.schema_registry import RegistryAway, RegistryRefused, SchemaRegistry

PUBLISHED: Final = Path(__file__).parents[1] / "published" / "versions"
QUESTIONS_PER_PAUSE: Final = 20


class SchemaUnknown(Exception):
    """No schema is known by this id or fingerprint, or the one that is cannot be used."""


class AvroSchemas:
    """`folder` belongs to one registry: schemas from another one's would be read as this one's."""

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
        self._asked: set[int] = set()
        self._pause_ends = 0.0
        self._away = False
        for path in sorted(PUBLISHED.glob("*.avsc")):
            schema = avro.parse(path.read_text("utf-8"))
            self._by_fingerprint[schema.fingerprint] = schema

    def load(self, subjects: Iterable[str]) -> str | None:
        """What the disk has, then what the registry has; why the registry could not tell, if so."""
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
            except (RegistryAway, RegistryRefused) as error:
                return str(error)
            return None

    def by_id(self, id: int) -> avro.Schema:
        known = self._by_id.get(id)
        if known is not None:
            return known
        with self._lock:
            if id not in self._by_id and id not in self._unusable:
                self._ask(id)
            if id in self._by_id:
                return self._by_id[id]
            raise SchemaUnknown(self._unusable.get(id, f"no schema with the id {id} is known"))

    def by_fingerprint(self, fingerprint: bytes) -> avro.Schema:
        known = self._by_fingerprint.get(fingerprint)
        if known is None:
            raise SchemaUnknown(f"no schema with the fingerprint {fingerprint.hex()} is known")
        return known

    def registered(self, subject: str, schema: avro.Schema) -> int:
        """The id to write by: the registry's, or where that is away the one that it gave before.
        May raise RegistryAway or RegistryRefused."""
        with self._lock:
            if self._registry is None:
                raise RegistryAway("there is no registry")
            try:
                id = self._registry.register(subject, schema.text)
            except RegistryAway:
                for known, its in self._by_id.items():
                    if its.fingerprint == schema.fingerprint:
                        return known
                raise
            self._take(id, schema.text)
            self._keep(id, schema.text)
            return id

    def _ask(self, id: int) -> None:
        if self._registry is None:
            return
        now = self._clock()
        if now >= self._pause_ends:
            self._asked.clear()
            self._away = False
            self._pause_ends = now + self._pause_s
        if self._away or id in self._asked or len(self._asked) >= QUESTIONS_PER_PAUSE:
            return
        self._asked.add(id)
        try:
            text = self._registry.schema(id)
        except (RegistryAway, RegistryRefused):
            self._away = True
            # The pause begins when the answer failed to come.
            self._pause_ends = self._clock() + self._pause_s
            return
        if text is not None:
            self._take(id, text)
            self._keep(id, text)

    def _take(self, id: int, text: str) -> None:
        """The registry is asked after the disk: where they differ, it is right."""
        try:
            schema = avro.parse(text)
        except avro.Unusable as unusable:
            self._by_id.pop(id, None)
            self._unusable[id] = f"the schema with the id {id} cannot be used: {unusable}"
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
