"""Producers of every kind beside one ledger: what each does wrong is told to it, and delays nobody
else.

After each bad case a good command has its result; nothing here knows how the ledger does that.
"""

import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types
from confluent_kafka import KafkaException, Message, Producer

from schemas import ids, partitioning
from schemas.commands import Credit
from schemas.encoding import codecs
from schemas.encoding.codecs import AvroSchemas
from tests.testkit import doc_pages, pipeline
from tests.testkit.pipeline import PARTITIONS, Pipeline

GOOD_S = 10.0
SCHEMA_ID = 4_242
TRANSACTION_MS = 4_000


@pytest.fixture(scope="module")
def ledger(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("producers")
    with pipeline.made(kafka, postgres, template, folder) as ledger:
        yield ledger


@pytest.fixture
def account(ledger: Pipeline) -> str:
    """An open wallet of this test's own."""
    name = f"w{secrets.token_hex(5)}"
    opening = {"kind": "open_account", "account": name, "type": "wallet", "currency": "NGN"}
    assert posted(ledger, {**opening, "id": "open"})
    return name


def home(account: str) -> int:
    return partitioning.partition_of(account, PARTITIONS)


def credit(account: str, **more: Any) -> dict[str, Any]:
    return {"kind": "credit", "account": account, "amount": 5, "id": secrets.token_hex(8), **more}


def posted(ledger: Pipeline, command: dict[str, Any], timeout_s: float = GOOD_S) -> bool:
    account = command["account"]
    at = ledger.send(command, account.encode(), home(account))
    result = ledger.result(at, timeout_s)
    assert result["id"] == command["id"]
    assert result["transaction_id"] == ids.transaction_id(account, command["id"])
    return bool(result["outcome"] == "posted")


# Wrong ways to route


def unkeyed(account: str) -> tuple[bytes | None, int]:
    return None, home(account)


def quoted(account: str) -> tuple[bytes | None, int]:
    return f'"{account}"'.encode(), home(account)


def framed(account: str) -> tuple[bytes | None, int]:
    return b"\0\0\0\0\1" + bytes([2 * len(account)]) + account.encode(), home(account)


def elsewhere(account: str) -> tuple[bytes | None, int]:
    return account.encode(), (home(account) + 1) % PARTITIONS


def of_another(account: str) -> tuple[bytes | None, int]:
    return b"another", home(account)


@pytest.mark.parametrize("way", [unkeyed, quoted, framed, elsewhere, of_another])
def test_what_came_the_wrong_way_is_misrouted_and_its_id_is_still_free(
    ledger: Pipeline, account: str, way: Callable[[str], tuple[bytes | None, int]]
) -> None:
    command = credit(account)
    at = ledger.send(command, *way(account))
    result = ledger.result(at)
    assert (result["outcome"], result["reason"]) == ("rejected", "misrouted")
    assert result["id"] == command["id"]
    assert "transaction_id" not in result
    keys = [key for key, value in ledger.read(ledger.names.results) if json.loads(value) == result]
    assert keys == [f"{at[0]}:{at[1]}".encode()]
    assert posted(ledger, command)


def test_librdkafkas_own_partitioner_misroutes_and_murmur2_does_not(
    ledger: Pipeline,
) -> None:
    """Of these 24 accounts its hash puts most elsewhere; the page says which to set."""
    names = [f"partitioned-{number}" for number in range(24)]
    own = [r["reason"] for r in ledger.results_of(freeze(ledger, names))]
    assert set(own) == {"misrouted", "account_not_found"}
    reasons = [r["reason"] for r in ledger.results_of(freeze(ledger, names, "murmur2_random"))]
    assert set(reasons) == {"account_not_found"}


def freeze(ledger: Pipeline, names: list[str], partitioner: str = "") -> list[tuple[int, int]]:
    """Commands about accounts that are not there, where a producer's partitioner puts them."""
    own = {"partitioner": partitioner} if partitioner else {}
    producer = Producer({"bootstrap.servers": ledger.kafka, "acks": "all", **own})
    positions: list[tuple[int, int]] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        positions.append((message.partition() or 0, message.offset() or 0))

    for name in names:
        value = json.dumps({"kind": "freeze", "account": name, "id": "freeze"})
        producer.produce(ledger.names.commands, value, name, on_delivery=delivered)
    assert producer.flush(30) == 0
    return positions


async def test_aiokafka_hashes_as_the_page_says(ledger: Pipeline) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=ledger.kafka, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for name in (f"w{secrets.token_hex(5)}" for _ in range(24)):
            value = json.dumps({"kind": "freeze", "account": name, "id": "freeze"}).encode()
            sent = await producer.send_and_wait(ledger.names.commands, value, name.encode())
            assert sent.partition == home(name)
    finally:
        await producer.stop()


# Wrong contents


def test_a_line_that_is_too_large_is_named_and_the_others_are_sent(
    ledger: Pipeline, account: str
) -> None:
    lines = [
        json.dumps({"kind": "credit", "account": account, "id": f"line-{n}", "amount": 5, **more})
        for n, more in enumerate(({}, {"description": "x" * 1_100_000}, {}))
    ]
    completed = ledger.streamledger("produce", "--wait", given="\n".join(lines), exit_code=1)
    assert completed.stdout.count("posted") == 2
    assert (
        "line 2: not sent: 1,100," in completed.stderr
        and "bytes are more than a record" in completed.stderr
    )
    assert "2 lines were sent, 1 were not" in completed.stderr
    assert "each that has an id happens once" in completed.stderr
    assert "Traceback" not in completed.stderr
    # As it says: all of them again.
    again = ledger.streamledger("produce", "--wait", given="\n".join(lines), exit_code=1)
    assert again.stdout.count("posted (replay)") == 2


def test_a_file_that_is_not_there_is_one_line(ledger: Pipeline) -> None:
    completed = ledger.streamledger(
        "dead-letters", "resubmit", "0:0", "--value", "nofile", exit_code=1
    )
    assert completed.stderr == "streamledger: nofile: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "gift"}, "malformed"),
        ({"id": None}, "malformed"),
        ({"amonut": 5}, "unknown_field"),
        ({"amount": "5.00"}, "amount_invalid"),
        ({"amount": 2**53}, "amount_invalid"),
        ({"effective_at_ms": 1}, "time_out_of_range"),
        ({"description": "x" * 70_000}, "too_large"),
        ({"currency": "USD"}, "currency_mismatch"),
    ],
)
def test_an_impossible_command_is_rejected_with_a_reason(
    ledger: Pipeline, account: str, change: dict[str, Any], reason: str
) -> None:
    command = {**credit(account), **change}
    at = ledger.send(command, account.encode(), home(account))
    result = ledger.result(at)
    assert (result["outcome"], result["reason"]) == ("rejected", reason)
    assert posted(ledger, credit(account))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "malformed"),
        (b"not json", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"\0\0\0\x27\x0f some record", "schema_unknown"),
        (b"\xc3\x01 12345678 some record", "schema_unknown"),
    ],
)
def test_an_unreadable_record_is_refused_by_its_position(
    ledger: Pipeline, account: str, value: bytes, reason: str
) -> None:
    started = time.monotonic()
    at = ledger.send(value, account.encode(), home(account))
    assert posted(ledger, credit(account))
    result = ledger.result(at)
    assert (result["outcome"], result["reason"]) == ("rejected", reason)
    assert time.monotonic() - started < GOOD_S


def test_single_object_avro_needs_no_registry(ledger: Pipeline, account: str) -> None:
    command = Credit(account=account, amount=7, id="as-avro")
    value = codecs.encode_single_object(command)
    result = ledger.result(ledger.send(value, account.encode(), home(account)))
    assert (result["outcome"], result["id"]) == ("posted", "as-avro")
    # The encoding is no part of what is wanted: the same in JSON is a replay.
    again = {"kind": "credit", "account": account, "amount": 7, "id": "as-avro"}
    result = ledger.result(ledger.send(again, account.encode(), home(account)))
    assert (result["outcome"], result["replay"]) == ("posted", True)
    assert not isinstance(codecs.decode_command(value, AvroSchemas()), codecs.UnreadableRecord)


# Transactions of other producers


def transactional(ledger: Pipeline, timeout_ms: int) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": ledger.kafka,
            "transactional.id": f"{ledger.prefix}other-{secrets.token_hex(4)}",
            "transaction.timeout.ms": timeout_ms,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    return producer


def test_an_aborted_command_never_happens_and_leaves_a_gap(ledger: Pipeline, account: str) -> None:
    producer = transactional(ledger, 10_000)
    producer.begin_transaction()
    aborted = credit(account)
    producer.produce(ledger.names.commands, json.dumps(aborted), account, home(account))
    producer.flush(30)
    producer.abort_transaction(30)
    assert posted(ledger, credit(account))
    assert [r for r in ledger.results() if r.get("id") == aborted["id"]] == []


def test_a_producer_that_hangs_delays_its_partition_until_its_time_is_over(
    ledger: Pipeline, account: str
) -> None:
    producer = transactional(ledger, TRANSACTION_MS)
    producer.begin_transaction()
    hung = credit(account)
    producer.produce(ledger.names.commands, json.dumps(hung), account, home(account))
    producer.flush(30)
    other = next(n for n in map(str, range(99)) if home(n) != home(account))
    opening = {"kind": "open_account", "account": other, "type": "wallet", "currency": "NGN"}
    assert posted(ledger, {**opening, "id": secrets.token_hex(4)})
    # The broker looks for such transactions every 10 seconds by default.
    assert posted(ledger, credit(account), TRANSACTION_MS / 1000 + 20)
    with pytest.raises(KafkaException):
        producer.commit_transaction(30)
    assert [r for r in ledger.results() if r.get("id") == hung["id"]] == []


def test_brokers_of_a_ledger_refuse_the_clients_own_transaction_timeout(ledger: Pipeline) -> None:
    with pytest.raises(KafkaException, match="timeout"):
        transactional(ledger, 60_000)


# Two ledgers on the same brokers


def test_two_ledgers_share_brokers_by_prefix_and_see_nothing_of_each_other(
    ledger: Pipeline,
    kafka: str,
    postgres: str,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    opening = {"kind": "open_account", "account": "shared", "type": "wallet", "currency": "NGN"}
    folder = tmp_path_factory.mktemp("second")
    with pipeline.made(kafka, postgres, template, folder) as second:
        for each in (ledger, second):
            assert posted(each, {**opening, "id": "shared-open"})
        assert posted(second, credit("shared", id="only-here"))
        assert [r["id"] for r in second.results()] == ["shared-open", "only-here"]
        assert "only-here" not in {r.get("id") for r in ledger.results()}


# `streamledger produce`


def test_produce_reports_each_line_and_exits_as_requested(ledger: Pipeline, account: str) -> None:
    good, too_much = credit(account), {**credit(account), "kind": "debit", "amount": 10**6}
    lines = "".join(json.dumps(each) + "\n" for each in (good, too_much))
    ended = ledger.streamledger("produce", "--wait", "--json", given=lines)
    results = {r["id"]: r for r in map(json.loads, ended.stdout.splitlines())}
    assert results[good["id"]]["outcome"] == "posted"
    assert results[too_much["id"]]["reason"] == "insufficient_funds"
    ended = ledger.streamledger("produce", "--strict", given=lines, exit_code=1)
    assert "posted (replay)" in ended.stdout
    assert "insufficient_funds" in ended.stdout
    ended = ledger.streamledger("produce", given=lines)
    for line, command in zip(ended.stdout.splitlines(), (good, too_much), strict=True):
        assert line.split()[1:] == [account, ids.transaction_id(account, command["id"])]


def test_produce_sends_what_names_its_account_and_names_the_lines_that_do_not(
    ledger: Pipeline, account: str
) -> None:
    bad = ["not json", "[]", '{"account": 5}', '{"account": ""}', '{"account": "\\ud800"}']
    wrong = {"account": account, "kind": "gift", "id": "unknown-kind"}
    lines = "\n".join([*bad, "", json.dumps(wrong), json.dumps(credit(account))])
    ended = ledger.streamledger("produce", "--wait", given=lines, exit_code=1)
    *reports, summary = ended.stderr.splitlines()
    assert [line.split(": ")[1] for line in reports] == [f"line {n}" for n in range(1, 6)]
    assert "2 lines were sent, 5 were not" in summary
    assert "malformed" in ended.stdout
    assert "posted" in ended.stdout


def test_produce_sends_many_and_misses_no_result(ledger: Pipeline, account: str) -> None:
    count = 3_000
    lines = "".join(json.dumps(credit(account)) + "\n" for _ in range(count))
    ended = ledger.streamledger("produce", "--strict", given=lines)
    assert sum(" posted " in line for line in ended.stdout.splitlines()) == count


def test_produce_says_what_has_no_result_yet(ledger: Pipeline, account: str) -> None:
    """The sink is away: what was sent is sent."""
    ledger.sink.kill()
    line = json.dumps(credit(account))
    ended = ledger.streamledger("produce", "--wait", "--timeout", "1", given=line, exit_code=1)
    assert "its result has not come yet" in ended.stderr
    ledger.sink.start()
    ended = ledger.streamledger("produce", "--strict", given=line)
    assert "posted (replay)" in ended.stdout


def test_what_cannot_be_read_or_reached_is_one_line(ledger: Pipeline) -> None:
    ended = ledger.streamledger("produce", "--file", "nowhere.jsonl", exit_code=1)
    assert (
        ended.stderr == "streamledger: nowhere.jsonl: cannot be read: No such file or directory\n"
    )


class _Registry(BaseHTTPRequestHandler):
    """Has one schema, and records its requests."""

    requests: list[tuple[str, str]] = []

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, given["schema"]))
        answer = json.dumps({"id": SCHEMA_ID}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_the_avro_example_frames_by_the_id_that_the_registry_gave(
    ledger: Pipeline, account: str
) -> None:
    """A ledger without that registry rejects it, by the position, and goes on."""
    command = credit(account)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    example = doc_pages.ROOT / "docs" / "examples" / "python" / "produce_avro.py"
    schema = doc_pages.ROOT / "schemas" / "published" / "command.avsc"
    url = f"http://127.0.0.1:{server.server_port}"
    words = [sys.executable, str(example), str(schema), url]
    output = ledger.run(words, json.dumps(command)).stdout
    server.shutdown()
    server.server_close()
    assert output.split()[1:] == ["None", "rejected", "schema_unknown"]
    subject = f"/subjects/{ledger.names.commands}-value/versions"
    assert _Registry.requests == [(subject, schema.read_text("utf-8"))]
    framed = [v for _, v in ledger.read(ledger.names.commands) if v[:5] == b"\0\0\0\x10\x92"]
    assert framed == [codecs.encode_confluent(Credit(**without_kind(command)), SCHEMA_ID)]
    assert posted(ledger, command)


def without_kind(command: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in command.items() if name != "kind"}
