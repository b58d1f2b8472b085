"""Finds what a new version of a published schema breaks for readers and writers of older versions.

The rule: fields are only ever added, with defaults. Lists of allowed texts and tagged unions may
grow. Everything else about a field stays as published.
"""

from typing import Any, Final

Json = dict[str, Any]

# Descriptions for people; they have no effect on compatibility.
_PROSE: Final = frozenset({"title", "description", "$comment", "doc", "$id", "$schema"})
_STRUCTURE: Final = frozenset(
    {"$ref", "$defs", "anyOf", "discriminator", "properties", "required", "items", "prefixItems"}
    | {"additionalProperties", "enum"}
)


def without_prose(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_prose(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # Names under `properties` are field names, even if they match a keyword.
    return {
        name: {field: without_prose(part) for field, part in part.items()}
        if name in ("properties", "$defs")
        else without_prose(part)
        for name, part in schema.items()
        if name not in _PROSE
    }


def json_schema_breaks(old: Json, new: Json) -> list[str]:
    return _JsonSchemas(old.get("$defs", {}), new.get("$defs", {})).compare(old, new)


class _JsonSchemas:
    def __init__(self, old_defs: Json, new_defs: Json) -> None:
        self._old_defs = old_defs
        self._new_defs = new_defs
        self._seen: set[tuple[str, str]] = set()
        self._broken: list[str] = []

    def compare(self, old: Json, new: Json) -> list[str]:
        self._part("", old, new)
        return self._broken

    def _break(self, place: str, what: str) -> None:
        self._broken.append(f"{place or 'the message'}: {what}")

    def _part(self, place: str, old: Json, new: Json) -> None:
        if "$ref" in old and "$ref" in new:
            if (old["$ref"], new["$ref"]) in self._seen:
                return
            self._seen.add((old["$ref"], new["$ref"]))
        old, new = _resolved(old, self._old_defs), _resolved(new, self._new_defs)
        rules = (old.keys() | new.keys()) - _PROSE - _STRUCTURE
        for rule in sorted(rules):
            if old.get(rule, _ABSENT) != new.get(rule, _ABSENT):
                self._break(place, f"{rule} was {old.get(rule)!r} and is {new.get(rule)!r}")
        if removed := [value for value in old.get("enum", ()) if value not in new.get("enum", ())]:
            self._break(place, f"no longer allows {removed}")
        if ("enum" in new) != ("enum" in old):
            self._break(place, "started or stopped being a list of allowed values")
        self._union(place, old, new)
        self._fields(place, old, new)
        self._items(place, old, new)

    def _union(self, place: str, old: Json, new: Json) -> None:
        if "discriminator" in old and "discriminator" in new:
            was, now = old["discriminator"]["mapping"], new["discriminator"]["mapping"]
            for tag, ref in was.items():
                if tag not in now:
                    self._break(place, f"{tag} was removed")
                else:
                    self._part(f"{place}<{tag}>", {"$ref": ref}, {"$ref": now[tag]})
            return
        was, now = old.get("anyOf", []), new.get("anyOf", [])
        if len(was) != len(now):
            self._break(place, "accepts other types than before")
            return
        for old_branch, new_branch in zip(was, now, strict=True):
            self._part(place, old_branch, new_branch)

    def _fields(self, place: str, old: Json, new: Json) -> None:
        was, now = old.get("properties", {}), new.get("properties", {})
        required_before, required_now = set(old.get("required", ())), set(new.get("required", ()))
        for name, part in was.items():
            inner = f"{place}.{name}"
            if name not in now:
                self._break(inner, "was removed")
                continue
            if (name in required_before) != (name in required_now):
                self._break(inner, "started or stopped being required")
            self._part(inner, part, now[name])
        for name in now.keys() - was.keys():
            if name in required_now or "default" not in now[name]:
                self._break(f"{place}.{name}", "was added without a default")
        if required_now - now.keys() != required_before - was.keys():
            self._break(place, "requires other fields than before")
        others = [s.get("additionalProperties", True) for s in (old, new)]
        if all(isinstance(s, dict) for s in others):
            self._part(f"{place}.*", *others)
        elif others[0] != others[1]:
            self._break(place, "accepts other fields than before")

    def _items(self, place: str, old: Json, new: Json) -> None:
        if ("items" in old) != ("items" in new):
            self._break(place, "started or stopped being a list")
        elif "items" in old:
            self._part(f"{place}[]", old["items"], new["items"])
        was, now = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(now) < len(was):
            self._break(place, "lost its last fields")
        for index, (old_part, new_part) in enumerate(zip(was, now, strict=False)):
            self._part(f"{place}[{index}]", old_part, new_part)
        for index, part in enumerate(now[len(was) :], len(was)):
            if "default" not in part:
                self._break(f"{place}[{index}]", "was added without a default")


def _resolved(part: Json, defs: Json) -> Json:
    while "$ref" in part:
        beside = {name: value for name, value in part.items() if name != "$ref"}
        part = defs[part["$ref"].removeprefix("#/$defs/")] | beside
    return part


def avro_breaks(old: Json, new: Json, place: str = "") -> list[str]:
    """Compares two records: fields keep their type and default; new fields have a default."""
    broken = []
    for rule in ("type", "name", "namespace"):
        if old.get(rule) != new.get(rule):
            broken.append(f"{place or 'the record'}: {rule} is no longer {old.get(rule)}")
    now = {field["name"]: field for field in new["fields"]}
    was = {field["name"]: field for field in old["fields"]}
    for name, field in was.items():
        inner = f"{place}.{name}"
        if name not in now:
            broken.append(f"{inner}: was removed")
            continue
        broken += _avro_type_breaks(field["type"], now[name]["type"], inner)
        if field.get("default", _ABSENT) != now[name].get("default", _ABSENT):
            broken.append(f"{inner}: has another default than before")
    for name in now.keys() - was.keys():
        if "default" not in now[name]:
            broken.append(f"{place}.{name}: was added without a default")
    return broken


def _avro_type_breaks(old: Any, new: Any, place: str) -> list[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            broken
            for was, now in zip(old, new, strict=True)
            for broken in _avro_type_breaks(was, now, place)
        ]
    if isinstance(old, dict) and isinstance(new, dict) and old["type"] == new["type"]:
        if old["type"] == "record":
            return avro_breaks(old, new, place)
        if old["type"] == "array":
            return _avro_type_breaks(old["items"], new["items"], f"{place}[]")
        if old["type"] == "map":
            return _avro_type_breaks(old["values"], new["values"], f"{place}.*")
    return [] if old == new else [f"{place}: is no longer {old}"]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT: Final = _Absent()
