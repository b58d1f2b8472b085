"""Where the embedded Kafka and Postgres of a running `streamledger up` are.

Keeps the rule that what is not set means the embedded parts, also for the commands that are called
beside `up`. It starts nothing and makes no folder.
"""

from pathlib import Path
from urllib.parse import quote

from compose.provisioning import ProvisionSettings
from ingress.settings import IngressSettings
from plumbing.kafka import clients, topic_check
from plumbing.kafka.clients import ClientConfig


def settings(data: Path) -> ProvisionSettings:
    """The settings, with what is not set taken from an `up` that runs on this folder."""
    read = ProvisionSettings.read()
    if not data.exists():
        return read
    # An installation without the embedded parts lacks what they import.
    from compose.acls import KafkaUser
    from compose.embedded import data_dir, postgres, report, security
    from compose.embedded.supervisor import PartState

    kept = data_dir.DataFolder(data)
    running, parts = report.look(kept)
    if running is None:
        return read
    found: dict[str, str] = {}
    ready = [part for part in parts if part.state == PartState.READY]
    brokers = [part.address for part in ready if part.name.startswith("kafka")]
    if read.kafka_brokers is None and brokers:
        found["kafka_brokers"] = ",".join(brokers)
        if kept.secured:
            passwords = kept.passwords(security.USERS)
            as_operator = security.settings(KafkaUser.OPERATOR, passwords[KafkaUser.OPERATOR])
            found |= {name.lower(): value for name, value in as_operator.items()}
    server = next((part.address for part in ready if part.name == "postgres"), None)
    if read.database_url is None and server is not None:
        password = quote(kept.secrets()[data_dir.POSTGRES_PASSWORD], safe="")
        found["database_url"] = (
            f"postgresql://{postgres.USER}:{password}@{server}/{postgres.DATABASE}"
        )
    values = {name.upper(): value for name, value in found.items()}
    return ProvisionSettings.model_validate({**read.model_dump(by_alias=True), **values})


def reach(settings: ProvisionSettings, client_id: str) -> None:
    """Whether Kafka is there and lets a command in: a time-out would not tell why."""
    topic_check.cluster_layout(clients.admin(settings, client_id), settings)


def client(settings: ProvisionSettings, client_id: str) -> ClientConfig:
    """What a command's clients begin with."""
    reach(settings, client_id)
    return clients.client_config(settings, client_id)


def url(data: Path) -> str:
    """Where the ingress of an `up` that runs on this folder is; else where its settings put it."""
    if data.exists():
        from compose.embedded import data_dir, report

        running, _ = report.look(data_dir.DataFolder(data))
        if running is not None and running.url:
            return running.url
    read = IngressSettings.read()
    return f"http://{read.http_host}:{read.http_port}"
