"""A Kafka that asks who comes, over TLS, with two ledgers on it: each user has the rights that are
listed for his role, and no others.

Who may do what is asked of the brokers as a client asks them; nothing here knows the rights.
"""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from urllib.parse import parse_qs

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from compose import acls
from compose.acls import KafkaUser, Wanted
from compose.embedded import data_dir, java, kafka, programs, security
from plumbing.kafka.clients import ClientConfig
from schemas import topics
from schemas.topics import Names
from tests.testkit import brokers
from tests.testkit.programs import inherited

PROTOCOL = "SASL_SSL"
LISTENER = "listener.name.sasl_ssl"
PASSWORD = "hunter2-of-"
PARTITIONS = 2
RUN_S = 120.0
Env = dict[str, str]
CODES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


class Ledger:
    """One of those on the same brokers: its names, and its users, who are called after it."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.prefix = f"{name}."
        self.names = Names(self.prefix)

    def user(self, role: KafkaUser) -> str:
        return f"{self.id}-{role}"

    def wanted(self) -> list[Wanted]:
        return [Wanted(role, self.user(role)) for role in KafkaUser]


class Secured:
    def __init__(self, cluster: kafka.Cluster, ca: Path, provider: "Provider") -> None:
        self.cluster = cluster
        self.ca = ca
        self.provider = provider

    def settings(self, ledger: Ledger, user: str, mechanism: str = "SCRAM-SHA-512") -> Env:
        """What a service or a command of ours is told."""
        return {
            "KAFKA_BROKERS": self.cluster.bootstrap,
            "TOPIC_PREFIX": ledger.prefix,
            "LEDGER_ID": ledger.id,
            "PARTITIONS": str(PARTITIONS),
            "KAFKA_SECURITY_PROTOCOL": PROTOCOL,
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": PASSWORD + user,
            "KAFKA_SSL_CA_LOCATION": str(self.ca),
        }

    def bearer(self, ledger: Ledger, user: str) -> Env:
        """The same for one who shows tokens."""
        told = self.settings(ledger, user, "OAUTHBEARER")
        del told["KAFKA_SASL_USERNAME"], told["KAFKA_SASL_PASSWORD"]
        return told | {
            "KAFKA_OAUTH_TOKEN_URL": self.provider.url,
            "KAFKA_OAUTH_CLIENT_ID": user,
            "KAFKA_OAUTH_CLIENT_SECRET": PASSWORD + user,
            "KAFKA_OAUTH_SCOPE": "kafka",
        }

    def client(self, user: str) -> ClientConfig:
        its = security.client(user, PASSWORD + user, PROTOCOL)
        return {**self.cluster.client, **its, "client.id": user}

    def admit(self, *users: str) -> None:
        """With a password of theirs, and no rights."""
        admin = AdminClient(self.cluster.client)
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            how = ScramCredentialInfo(mechanism, 4096)
            changes: list[UserScramCredentialAlteration] = [
                UserScramCredentialUpsertion(user, how, (PASSWORD + user).encode())
                for user in users
            ]
            for done in admin.alter_user_scram_credentials(changes).values():
                done.result(30)

    def make(self, ledger: Ledger) -> None:
        """Users, their rights and, by its own operator, the topics."""
        self.admit(*(ledger.user(role) for role in KafkaUser))
        admin = AdminClient(self.cluster.client)
        acls.apply(admin, ledger.wanted(), ledger.names, ledger.id)
        run(self.settings(ledger, ledger.user(KafkaUser.OPERATOR)), "topics", "create")


def run(
    settings: Env, *words: str, given: str = "", exit_code: int = 0, folder: str = "/"
) -> "subprocess.CompletedProcess[str]":
    """A command of ours."""
    ended = subprocess.run(
        [sys.executable, "-m", "compose.cli.main", *words],
        cwd=folder,
        env={**inherited(), **settings},
        input=given,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    said = f"{words}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == exit_code, said
    return ended


def written(config: ClientConfig, names: Sequence[str]) -> set[str]:
    """Those of the topics that take a record."""
    taken: set[str] = set()

    def told(error: KafkaError | None, message: Message) -> None:
        if error is None:
            taken.add(str(message.topic()))
        else:
            assert error.code() in CODES, error

    producer = Producer({**config, "acks": "all", "message.timeout.ms": 20_000})
    for name in names:
        producer.produce(name, b"{}", b"none", partition=0, on_delivery=told)
    assert producer.flush(30) == 0
    return taken


def read(config: ClientConfig, names: Sequence[str]) -> set[str]:
    """Those of the topics that can be read."""
    consumer = Consumer(
        {**config, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    told: dict[str, KafkaError | None] = {}
    for name in names:
        told[name] = consumer.list_topics(name, timeout=30).topics[name].error
    described = {name for name, error in told.items() if error is None}
    consumer.assign([TopicPartition(name, 0, 0) for name in described])
    heard: set[str] = set()
    try:
        while heard != described:
            message = consumer.poll(30)
            assert message is not None, f"only {told}"
            heard.add(str(message.topic()))
            told[str(message.topic())] = message.error()
    finally:
        consumer.close()
    for error in told.values():
        assert error is None or error.code() in {KafkaError._PARTITION_EOF, *CODES}, error
    return {name for name, error in told.items() if error is None or error.code() not in CODES}


def takes_over(config: ClientConfig, transactional_id: str) -> bool:
    """Whether it may begin transactions, and so fence whoever has that id."""
    producer = Producer(
        {**config, "transactional.id": transactional_id, "transaction.timeout.ms": 10_000}
    )
    try:
        producer.init_transactions(30)
    except KafkaException as error:
        assert error.args[0].code() in CODES, error
        return False
    return True


def joins(config: ClientConfig, group: str, topic: str) -> bool:
    """Whether it may become a member of that group."""
    joined, deadline = threading.Event(), time() + 60
    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False})
    consumer.subscribe([topic], on_assign=lambda *_: joined.set())
    try:
        while not joined.is_set():
            assert time() < deadline, "neither joined nor refused"
            message = consumer.poll(0.1)
            if message is not None and (error := message.error()) is not None:
                assert error.code() in CODES, error
                return False
    finally:
        consumer.close()
    return True


ALL = [topic.role for topic in topics.ALL]


@contextmanager
def broker(where: data_dir.DataFolder) -> Iterator[Secured]:
    ca = certificate(where.path)
    passwords = " ".join(
        f'user_{user}="{PASSWORD}{user}"' for user in (security.ADMIN, "one-operator")
    )
    with provider() as tokens:
        password = PASSWORD + security.ADMIN
        told = security.properties(password, PROTOCOL)
        plain = told[f"{LISTENER}.plain.sasl.jaas.config"].split(" user_")[0]
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
        told |= {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{LISTENER}.plain.sasl.jaas.config": f"{plain} {passwords};",
            f"{LISTENER}.scram-sha-256.sasl.jaas.config": told[
                f"{LISTENER}.scram-sha-512.sasl.jaas.config"
            ],
            # Tokens without signature, which a real Kafka is never told to take.
            f"{LISTENER}.oauthbearer.sasl.jaas.config": (
                f'{bearer} required unsecuredLoginStringClaim_sub="broker";'
            ),
            "ssl.keystore.location": str(where.path / "keys"),
            "ssl.keystore.password": password,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(ca),
        }
        client = security.client(security.ADMIN, password, PROTOCOL)
        options = kafka.KafkaOptions(
            first_port=brokers.some_port(),
            fast_start=True,
            protocol=PROTOCOL,
            properties=told,
            client={**client, "ssl.ca.location": str(ca)},
        )
        never = threading.Event()
        cluster = programs.cluster(where, options, never)
        try:
            cluster.start(never)
            yield Secured(cluster, ca, tokens)
        finally:
            cluster.stop()


def certificate(folder: Path) -> Path:
    """Of this machine's loopback address, signed by itself, by the tool that each Java has."""
    password = PASSWORD + security.ADMIN
    found = java.find()
    store = ["-alias", "broker", "-keystore", str(folder / "keys"), "-storepass", password]
    tool = [str(found.program), "sun.security.tools.keytool.Main"]
    words = "-genkeypair -keyalg EC -groupname secp256r1 -dname CN=127.0.0.1 -validity 30"
    extensions = "-ext san=ip:127.0.0.1 -ext bc:c=ca:true -ext ku:c=digitalSignature,keyCertSign"
    subprocess.run([*tool, *words.split(), *extensions.split(), *store], check=True, timeout=60)
    shown = subprocess.run(
        [*tool, "-exportcert", "-rfc", *store], check=True, timeout=60, capture_output=True
    )
    ca = folder / "ca.pem"
    ca.write_bytes(shown.stdout)
    return ca


class Provider(ThreadingHTTPServer):
    """Gives a token to each client that knows its secret."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tokens)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/token"
        self.given: list[str] = []


class _Tokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Provider)
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        basic = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic "))
        user, _, password = basic.decode().partition(":")
        right = password == PASSWORD + user and form["grant_type"] == ["client_credentials"]
        answer: dict[str, object] = {"error": "invalid_client"}
        if right:
            server.given.append(f"{self.headers.get('User-Agent', '-')} {user} {form['scope']}")
            claims = {"sub": user, "iat": int(time()), "exp": int(time()) + 3_600}
            parts = [_part({"alg": "none"}), _part(claims), ""]
            answer = {"access_token": ".".join(parts), "expires_in": 3_600, "token_type": "Bearer"}
        body = json.dumps(answer).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _part(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


@contextmanager
def provider() -> Iterator[Provider]:
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
