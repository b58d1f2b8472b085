"""A shared Kafka that asks who comes: every service goes with the rights that are listed for it,
nobody can do what is another's, and who is not let in is told why, once, and delays nobody.
"""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from compose import acls
from compose.acls import KafkaUser, Wanted
from compose.embedded.data_dir import DataFolder
from plumbing.kafka import transactional_producer
from processor.admin import running_workers
from processor.admin.running_workers import Groups
from schemas import ids, topics
from tests.conftest import beside, create, drop
from tests.testkit import secured_kafka
from tests.testkit.programs import Program
from tests.testkit.secured_kafka import PASSWORD, Env, Ledger, Secured, run
from tests.testkit.sink_rig import Sink
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

ONE, TWO = Ledger("one"), Ledger("two")
START_S = 60.0
WRITES = {
    KafkaUser.PROCESSOR: {"coordination", "journal", "transactions", "state", "commands.dead"},
    KafkaUser.SINK: {"results", "results.positions"},
    KafkaUser.INGRESS: {"commands"},
    KafkaUser.OPERATOR: {"commands", "coordination"},
    KafkaUser.AUDITOR: set[str](),
    KafkaUser.PRODUCER: {"commands"},
    KafkaUser.ANALYST: set[str](),
}
READS = {
    KafkaUser.PROCESSOR: {"commands", "coordination", "state", "journal"},
    KafkaUser.SINK: {"journal", "results", "results.positions"},
    KafkaUser.INGRESS: {"results"},
    KafkaUser.OPERATOR: {topic.role for topic in topics.ALL},
    KafkaUser.AUDITOR: {topic.role for topic in topics.ALL},
    KafkaUser.PRODUCER: {"results"},
    KafkaUser.ANALYST: {"transactions"},
}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    where = DataFolder(tmp_path_factory.mktemp("secured") / "data")
    where.hold()
    try:
        with secured_kafka.broker(where) as made:
            made.make(ONE)
            made.make(TWO)
            yield made
    finally:
        where.processes.stop_stale()
        where.release()


class Pipe:
    """A processor and a sink of the first ledger, each a user of its own."""

    def __init__(self, kafka: Secured, database: str, folder: Path) -> None:
        self.kafka = kafka
        self.database = {"DATABASE_URL": database}
        self.folder = folder
        self.worker = Worker(1, folder / "processor", self.settings(KafkaUser.PROCESSOR))
        sink = self.settings(KafkaUser.SINK, "SCRAM-SHA-256") | self.database
        self.sink = Sink(1, folder / "sink", sink)

    def settings(self, role: KafkaUser, mechanism: str = "SCRAM-SHA-512") -> Env:
        return self.kafka.settings(ONE, ONE.user(role), mechanism)

    def wait(self) -> None:
        try:
            eventually(lambda: self.worker.ready() and self.sink.ready(), START_S)
        except AssertionError:
            raise AssertionError(f"{self.worker.tail()}\n{self.sink.tail()}") from None

    def send(self, *commands: dict[str, object]) -> list[str]:
        """As another producer; the outcomes."""
        given = "".join(json.dumps(command) + "\n" for command in commands)
        words = ("produce", "--wait", "--json")
        ended = run(self.settings(KafkaUser.PRODUCER), *words, given=given)
        return [json.loads(line)["outcome"] for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def pipe(
    kafka: Secured, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipe]:
    name = f"secured_{secrets.token_hex(5)}"
    create(postgres, name, template)
    made = Pipe(kafka, beside(postgres, name), tmp_path_factory.mktemp("pipe"))
    try:
        made.worker.start()
        made.sink.start()
        made.wait()
        yield made
    finally:
        made.worker.kill()
        made.sink.kill()
        drop(postgres, name)


def opened(account: str) -> dict[str, object]:
    more = {"type": "wallet", "currency": "NGN", "id": "opened"}
    return {"kind": "open_account", "account": account, **more}


def credited(account: str, id: str) -> dict[str, object]:
    return {"kind": "credit", "account": account, "amount": 1_000, "id": id}


def test_with_the_rights_that_are_listed_the_whole_ledger_works(pipe: Pipe) -> None:
    sent = (opened("ada"), opened("bem"), credited("ada", "1"))
    assert pipe.send(*sent) == ["posted"] * 3
    moved = {"kind": "transfer", "account": "ada", "to": "bem", "amount": 100, "id": "2"}
    assert pipe.send(moved) == ["posted"]
    analyst = pipe.settings(KafkaUser.ANALYST)
    seen = run(analyst, "consume", "--from-beginning", "--json").stdout.splitlines()
    amounts = [json.loads(line)["value"]["amount"] for line in seen]
    assert sorted(amounts) == [100, 101 + 1, 1_000]
    operator = pipe.settings(KafkaUser.OPERATOR, "PLAIN")
    run(operator, "topics", "check")
    run(operator, "configure", "--commission-bps", "100")
    run(operator, "dead-letters", "list")
    auditor = pipe.settings(KafkaUser.AUDITOR) | pipe.database
    assert "all copies agree" in run(auditor, "verify", "--against-rules").stdout


@pytest.mark.parametrize("role", KafkaUser)
def test_nobody_writes_or_reads_what_is_not_his(kafka: Secured, role: KafkaUser) -> None:
    config = kafka.client(TWO.user(role))
    names = [TWO.prefix + each for each in secured_kafka.ALL]
    ours = [ONE.prefix + each for each in secured_kafka.ALL]
    assert secured_kafka.written(config, names + ours) == {
        TWO.prefix + each for each in WRITES[role]
    }
    assert secured_kafka.read(config, names + ours) == {TWO.prefix + each for each in READS[role]}


def test_nobody_takes_the_place_of_another(kafka: Secured) -> None:
    """Who may begin a transaction by a processor's id has taken its partition from it."""
    owners = {
        ids.service_id(ledger.prefix, ledger.id, role): ledger.user(role)
        for ledger in (ONE, TWO)
        for role in (KafkaUser.PROCESSOR, KafkaUser.SINK)
    }
    for user in (TWO.user(role) for role in KafkaUser):
        config = kafka.client(user)
        for owned, owner in owners.items():
            if owner != user:
                assert not secured_kafka.takes_over(
                    config, transactional_producer.transactional_id(owned, 0)
                ), (
                    user,
                    owned,
                )
    for role in (KafkaUser.PRODUCER, KafkaUser.PROCESSOR):
        config = kafka.client(TWO.user(role))
        for owned in (
            ids.service_id(ONE.prefix, "one", "processor"),
            ids.service_id(TWO.prefix, "two", "sink"),
        ):
            assert not secured_kafka.joins(config, owned, TWO.names.results), (role, owned)
    producer = kafka.client(TWO.user(KafkaUser.PRODUCER))
    assert secured_kafka.takes_over(producer, f"{TWO.user(KafkaUser.PRODUCER)}-1")
    assert secured_kafka.joins(producer, f"{TWO.user(KafkaUser.PRODUCER)}-mine", TWO.names.results)


def test_who_is_not_let_in_is_told_why_and_delays_nobody(pipe: Pipe) -> None:
    right = {role: pipe.settings(role) for role in (KafkaUser.PROCESSOR, KafkaUser.SINK)}
    wrong = {"KAFKA_SASL_PASSWORD": "hunter3-is-wrong"}
    no_ca = {"KAFKA_SSL_CA_LOCATION": ""}
    bearer = pipe.kafka.bearer(ONE, ONE.user(KafkaUser.PROCESSOR))
    bad_token = {"KAFKA_OAUTH_CLIENT_SECRET": "hunter3-is-wrong"}
    more = pipe.database
    tried: dict[str, Program] = {
        "'one-processor' (": Worker(2, pipe.folder / "p2", right[KafkaUser.PROCESSOR] | wrong),
        "'one-sink' (": Sink(2, pipe.folder / "s2", right[KafkaUser.SINK] | more | wrong),
        "KAFKA_SSL_CA_LOCATION": Sink(3, pipe.folder / "s3", right[KafkaUser.SINK] | more | no_ca),
        "KAFKA_OAUTH_TOKEN_URL": Worker(4, pipe.folder / "p4", bearer | bad_token),
    }
    for program in tried.values():
        program.start()
    try:
        assert pipe.send(opened("cyd"), credited("cyd", "1")) == ["posted"] * 2
        for told, program in tried.items():
            assert program.wait(60) == 2, program.tail()
            lines = program.log_text().splitlines()
            assert "hunter" not in program.log_text()
            user, _, marker = told.partition(" ")
            assert user in lines[-1], program.tail()
            assert marker in lines[-1], program.tail()
            assert len(lines) == 1, program.tail()
    finally:
        for program in tried.values():
            program.kill()


@pytest.mark.parametrize(
    "words",
    [
        ("topics", "check"),
        ("verify", "--no-postgres"),
        ("configure", "--commission-bps", "1"),
        ("dead-letters", "list"),
        ("produce",),
        ("consume",),
    ],
    ids=" ".join,
)
def test_a_command_that_is_not_let_in_says_so(pipe: Pipe, words: tuple[str, ...]) -> None:
    wrong = {"KAFKA_SASL_PASSWORD": "hunter3-is-wrong"}
    ended = run(pipe.settings(KafkaUser.OPERATOR) | wrong, *words, exit_code=2)
    assert "refuses the user 'one-operator'" in ended.stderr
    assert "KAFKA_SASL_PASSWORD" in ended.stderr
    assert "hunter" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("configure", "--commission-bps", "1"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "0:0"),
        ("dead-letters", "resubmit", "0:0"),
    ],
    ids=" ".join,
)
def test_a_command_of_an_operator_without_his_rights(pipe: Pipe, words: tuple[str, ...]) -> None:
    """It does what needs no right, says which one it lacks, and is not silent."""
    ended = run(pipe.settings(KafkaUser.PRODUCER), *words, exit_code=2)
    assert "does not let the user 'one-producer' do that" in ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1


def test_workers_that_a_user_may_not_see_are_not_taken_for_none(pipe: Pipe) -> None:
    groups = Groups(*(ids.service_id(ONE.prefix, ONE.id, each) for each in ("processor", "sink")))
    with pytest.raises(KafkaException) as raised:
        running_workers.running(pipe.kafka.client(ONE.user(KafkaUser.PRODUCER)), groups)
    assert raised.value.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def test_who_lacks_a_right_is_told_which(pipe: Pipe) -> None:
    kafka = pipe.kafka
    admin = AdminClient(kafka.cluster.client)
    kafka.admit("half-sink", "half-processor", "nobody")
    for role in (KafkaUser.SINK, KafkaUser.PROCESSOR):
        user = f"half-{role}"
        some = Wanted(role, user)
        acls.apply(admin, [some], ONE.names, "another-ledger")
    sink = kafka.settings(ONE, "half-sink") | pipe.database
    tried: list[Program] = [
        Sink(5, pipe.folder / "s5", sink),
        Worker(5, pipe.folder / "p5", kafka.settings(ONE, "half-processor")),
    ]
    for program in tried:
        program.start()
    try:
        for program in tried:
            assert program.wait(60) in (1, 2), program.tail()
            last = program.log_text().splitlines()[-1]
            assert f"does not let the user 'half-{program.MODULE.removesuffix('s')}'" in last
            # What each asks for first: a processor compares its clock before it joins its group.
            right = "Group" if isinstance(program, Sink) else "Transactional Id"
            assert right in last, program.tail()
            assert "hunter" not in program.log_text()
    finally:
        for program in tried:
            program.kill()
    ended = run(kafka.settings(ONE, "nobody"), "topics", "check", exit_code=1)
    assert "not there, or this user may not see it" in ended.stderr


def test_tokens_do_as_well(pipe: Pipe) -> None:
    """Both clients of the processor, Faust's and librdkafka's, with tokens for passwords."""
    pipe.worker.stop()
    told = pipe.worker.log_text()
    assert PASSWORD not in told + pipe.sink.log_text()
    tokens = Worker(6, pipe.folder / "p6", pipe.kafka.bearer(ONE, ONE.user(KafkaUser.PROCESSOR)))
    tokens.start()
    try:
        eventually(tokens.ready, START_S)
        assert pipe.send(opened("dan"), credited("dan", "1")) == ["posted"] * 2
        tokens.stop()
        assert PASSWORD not in tokens.log_text()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{tokens.tail()}") from None
    finally:
        tokens.kill()
    assert {line.split()[1] for line in pipe.kafka.provider.given} == {
        ONE.user(KafkaUser.PROCESSOR)
    }
    pipe.worker.start()
    pipe.wait()
