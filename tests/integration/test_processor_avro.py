"""Commands in Avro at a running processor: by our own schema's fingerprint, and by a registry's id,
also while the registry is unreachable."""

from pathlib import Path

from schemas.commands import Credit
from schemas.encoding import avro, codecs
from tests.crash import worker_ledger as ledgers
from tests.testkit import fake_registry
from tests.testkit.fake_registry import FakeRegistry

SCHEMA_OF_NO_ONE = 4_711


def test_avro_by_fingerprint_and_by_a_registry_that_becomes_unreachable(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    fake = FakeRegistry()
    id = fake.add(f"{topic_prefix}commands-value", avro.command_schema().text)
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as ledger:
        with fake_registry.served(fake) as address:
            url = f"http://{address}"
            worker = ledger.ready(data="one", SCHEMA_REGISTRY_URL=url)
            account = ledger.open(0)

            def outcome(value: bytes) -> tuple[str, str | None]:
                outcome = ledger.outcome(ledger.send(value, account.encode(), 0))
                return outcome.step, outcome.reason

            def credit(key: str) -> Credit:
                return Credit(account=account, amount=5, id=key)

            assert outcome(codecs.encode_single_object(credit("single"))) == ("posted", None)
            assert outcome(codecs.encode_confluent(credit("known"), id)) == ("posted", None)
            unknown = codecs.encode_confluent(credit("unknown"), SCHEMA_OF_NO_ONE)
            assert outcome(unknown) == ("refused", "schema_unknown")
            assert worker.stop() == 0
        worker = ledger.ready(data="one", SCHEMA_REGISTRY_URL=url)
        assert outcome(codecs.encode_confluent(credit("kept"), id)) == ("posted", None)
        assert outcome(unknown) == ("refused", "schema_unknown")
        assert worker.stop() == 0
