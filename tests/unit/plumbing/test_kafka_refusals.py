"""Why we were not let in is told, whatever else the connection did; and once only."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from confluent_kafka import KafkaException

from plumbing.kafka import clients
from plumbing.settings import KafkaSettings
from tests.testkit.waiting import eventually


class Stranger:
    """Listens where Kafka should: answers the first connection in clear, and breaks all others."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listening.getsockname())
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(65_536)
                if not self.connections:
                    connection.sendall(b"This is not TLS.\n")
                    connection.shutdown(socket.SHUT_WR)
                    # Closed before it was read, the answer might be taken back.
                    connection.recv(1)
            self.connections += 1

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    made = Stranger()
    yield made
    made.close()


def test_a_refusal_outlasts_connections_that_break_after_it(stranger: Stranger) -> None:
    values = {"KAFKA_BROKERS": stranger.address, "KAFKA_SECURITY_PROTOCOL": "SSL"}
    admin = clients.admin(KafkaSettings.model_validate(values), "test")
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    eventually(lambda: stranger.connections > 3, 30)
    assert "no TLS with it" in (admin.last_refusal() or "")
    before = stranger.connections
    eventually(lambda: stranger.connections > before + 1, 30)
    assert admin.last_refusal() is None
