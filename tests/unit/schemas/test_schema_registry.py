"""The registry client against a loopback registry, and readers while it is unreachable."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from schemas.encoding import avro, codecs
from schemas.encoding.avro_schema_cache import MAX_REQUESTS_PER_PAUSE, AvroSchemas, SchemaUnknown
from schemas.encoding.schema_registry import HttpRegistry, RegistryRefused, RegistryUnreachable
from schemas.publishing import examples
from tests.testkit import fake_registry
from tests.testkit.fake_registry import FakeRegistry, Handler

SUBJECT = "commands-value"
COMMAND = avro.command_schema().text
INT, TEXT = '"int"', '"string"'


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def address(fake: FakeRegistry) -> Iterator[str]:
    with fake_registry.served(fake) as address:
        yield address


@pytest.fixture
def registry(address: str) -> HttpRegistry:
    return HttpRegistry(f"http://{address}", deadline_s=5)


@pytest.fixture
def nobody(address: str) -> HttpRegistry:
    """A registry at a port where nothing listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    return HttpRegistry(f"http://127.0.0.1:{port}", deadline_s=5)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# The client.


def test_a_schema_is_registered_once_and_read_back_by_id(registry: HttpRegistry) -> None:
    id = registry.register(SUBJECT, COMMAND)
    assert registry.register(SUBJECT, COMMAND) == id
    assert registry.schema(id) == COMMAND
    assert registry.versions(SUBJECT) == {id: COMMAND}


def test_a_schema_that_was_read_is_not_requested_again(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    id = fake.add(SUBJECT, COMMAND)
    assert registry.schema(id) == registry.schema(id) == COMMAND
    assert fake.requests == [f"GET /schemas/ids/{id}"]


def test_what_the_registry_does_not_have(registry: HttpRegistry) -> None:
    assert registry.schema(99) is None
    assert registry.versions("nothing") == {}


def test_a_schema_of_another_kind_is_none(registry: HttpRegistry, fake: FakeRegistry) -> None:
    id = fake.add(SUBJECT, 'syntax = "proto3";')
    fake.protobuf.add(id)
    assert registry.schema(id) is None


def test_an_incompatible_schema_is_refused_in_the_registrys_words(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    fake.refused.add(TEXT)
    with pytest.raises(RegistryRefused, match="409 it is incompatible with 1"):
        registry.register(SUBJECT, TEXT)


def test_user_and_password_of_the_url_are_sent_and_never_shown(
    address: str, fake: FakeRegistry
) -> None:
    fake.password = "me@home:s/cret"
    good = HttpRegistry(f"http://me%40home:s%2Fcret@{address}", deadline_s=5)
    assert good.register(SUBJECT, COMMAND)
    assert "cret" not in repr(good)
    bad = HttpRegistry(f"http://me:wrong@{address}", deadline_s=5)
    with pytest.raises(RegistryRefused, match="401") as refused:
        bad.versions(SUBJECT)
    assert "wrong" not in str(refused.value)


def test_a_path_in_the_url_and_odd_subjects(fake: FakeRegistry, address: str) -> None:
    HttpRegistry(f"http://{address}/apis/v1/", deadline_s=5).schema(1)
    HttpRegistry(f"http://{address}", deadline_s=5).versions("a/b ?c")
    assert fake.requests == ["GET /apis/v1/schemas/ids/1", "GET /subjects/a%2Fb%20%3Fc/versions"]


@pytest.mark.parametrize(
    "instead",
    [
        (500, b"{}"),
        (503, b"busy"),
        (429, b"{}"),
        (302, b""),
        (200, b"<html>"),
        (200, b"5"),
        (200, b"[" * 100_000),
        (200, b'{"schema": 5}'),
        (200, b'{"id": "x"}'),
        (200, b" " * (4 * 1024 * 1024 + 1)),
    ],
)
def test_an_unusable_answer_counts_as_an_unreachable_registry(
    registry: HttpRegistry, fake: FakeRegistry, instead: tuple[int, bytes]
) -> None:
    fake.instead = instead
    with pytest.raises(RegistryUnreachable):
        registry.schema(1)
    with pytest.raises(RegistryUnreachable):
        registry.register(SUBJECT, COMMAND)


def test_nobody_there(nobody: HttpRegistry) -> None:
    with pytest.raises(RegistryUnreachable):
        nobody.schema(1)


def test_tls_where_none_is_spoken(address: str) -> None:
    with pytest.raises(RegistryUnreachable):
        HttpRegistry(f"https://{address}", deadline_s=5).schema(1)


def test_an_answer_that_does_not_come_ends_at_the_deadline(
    address: str, fake: FakeRegistry
) -> None:
    fake.gate.clear()
    with pytest.raises(RegistryUnreachable):
        HttpRegistry(f"http://{address}", deadline_s=0.05).schema(1)


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://a", "http://", "http://a:port"])
def test_what_is_no_url_of_a_registry(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HttpRegistry(url)


# What readers know.


def test_what_we_published_is_known_without_a_registry() -> None:
    schemas = AvroSchemas()
    command = examples.COMMANDS["credit"]
    assert codecs.decode_command(codecs.encode_single_object(command), schemas) == command
    with pytest.raises(SchemaUnknown):
        schemas.by_id(1)


def test_schemas_are_loaded_at_start_and_kept_on_disk(
    tmp_path: Path, registry: HttpRegistry, fake: FakeRegistry, nobody: HttpRegistry
) -> None:
    ids = [fake.add(SUBJECT, INT), fake.add(SUBJECT, TEXT)]
    assert AvroSchemas(tmp_path, registry).load([SUBJECT, "nothing"]) is None

    later = AvroSchemas(tmp_path, nobody)
    assert "unreachable" in (later.load([SUBJECT]) or "")
    assert [later.by_id(id).text for id in ids] == [INT, TEXT]
    assert later.by_fingerprint(avro.parse(INT).fingerprint).text == INT


def test_an_unknown_id_is_fetched_once_and_kept(
    tmp_path: Path, registry: HttpRegistry, fake: FakeRegistry, nobody: HttpRegistry
) -> None:
    schemas = AvroSchemas(tmp_path, registry)
    schemas.load([])
    id = fake.add(SUBJECT, COMMAND)
    command = examples.COMMANDS["transfer"]
    value = codecs.encode_confluent(command, id)
    assert codecs.decode_command(value, schemas) == command
    assert codecs.decode_command(value, schemas) == command
    assert len(fake.requests) == 1

    later = AvroSchemas(tmp_path, nobody)
    later.load([])
    assert codecs.decode_command(value, later) == command


def test_a_missing_id_is_requested_once_per_pause(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    clock = Clock()
    schemas = AvroSchemas(registry=registry, pause_s=30, clock=clock)
    for _ in range(5):
        with pytest.raises(SchemaUnknown, match="unknown schema id 99"):
            schemas.by_id(99)
    assert len(fake.requests) == 1
    fake.schemas[99] = INT
    clock.now = 29
    with pytest.raises(SchemaUnknown):
        schemas.by_id(99)
    clock.now = 30
    assert schemas.by_id(99).text == INT


def test_a_flood_of_unknown_ids_asks_a_few_times(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    schemas = AvroSchemas(registry=registry, clock=Clock())
    for id in range(1_000, 1_500):
        with pytest.raises(SchemaUnknown):
            schemas.by_id(id)
    assert len(fake.requests) == MAX_REQUESTS_PER_PAUSE


def test_an_unreachable_registry_gets_one_request_per_pause_whatever_the_id(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    clock = Clock()
    schemas = AvroSchemas(registry=registry, pause_s=30, clock=clock)
    fake.instead = (503, b"")
    for id in range(100):
        with pytest.raises(SchemaUnknown):
            schemas.by_id(id)
    assert len(fake.requests) == 1
    fake.instead = None
    id = fake.add(SUBJECT, INT)
    clock.now = 30
    assert schemas.by_id(id).text == INT


def test_known_schemas_are_there_while_the_registry_does_not_answer(
    address: str, fake: FakeRegistry
) -> None:
    id = fake.add(SUBJECT, INT)
    schemas = AvroSchemas(registry=HttpRegistry(f"http://{address}", deadline_s=30))
    schemas.load([SUBJECT])
    fake.gate.clear()

    def ask() -> None:
        with pytest.raises(SchemaUnknown):
            schemas.by_id(99)

    asking = threading.Thread(target=ask)
    asking.start()
    assert schemas.by_id(id).text == INT
    assert asking.is_alive()
    fake.gate.set()
    asking.join(30)
    assert not asking.is_alive()


def test_the_registry_is_right_where_the_disk_differs(
    tmp_path: Path, registry: HttpRegistry, fake: FakeRegistry
) -> None:
    id = fake.add(SUBJECT, TEXT)
    (tmp_path / f"{id}.avsc").write_text(INT)
    (tmp_path / "11.avsc").write_text("cut o")
    (tmp_path / "notes.avsc").write_text("not ours")
    schemas = AvroSchemas(tmp_path, registry)
    assert schemas.load([SUBJECT]) is None
    assert schemas.by_id(id).text == TEXT
    with pytest.raises(SchemaUnknown, match="11 is unusable"):
        schemas.by_id(11)
    again = AvroSchemas(tmp_path)
    again.load([])
    assert again.by_id(id).text == TEXT


def test_a_schema_that_is_not_allowed_is_not_requested_again(
    registry: HttpRegistry, fake: FakeRegistry
) -> None:
    id = fake.add(SUBJECT, '{"type": "array", "items": "null"}')
    clock = Clock()
    schemas = AvroSchemas(registry=registry, clock=clock)
    for _ in range(3):
        with pytest.raises(SchemaUnknown, match="take no bytes"):
            schemas.by_id(id)
        clock.now += 100
    assert len(fake.requests) == 1
