"""Where the embedded Kafka and Postgres of a running `streamledger up` are.

Keeps the rule that what is not set means the embedded parts, also for the commands that are called
beside `up`. It starts nothing and makes no folder.
"""

from pathlib import Path
from urllib.parse import quote

from compose.provision import ProvisionSettings


def settings(data: Path) -> ProvisionSettings:
    """The settings, with what is not set taken from an `up` that runs on this folder."""
    read = ProvisionSettings.read()
    if not data.exists():
        return read
    # An installation without the embedded parts lacks what they import.
    from compose.embedded import folder, postgres, report
    from compose.embedded.supervisor import State

    kept = folder.DataFolder(data)
    running, parts = report.look(kept)
    if running is None:
        return read
    found: dict[str, str] = {}
    ready = [part for part in parts if part.state == State.READY]
    brokers = [part.address for part in ready if part.name.startswith("kafka")]
    if read.kafka_brokers is None and brokers:
        found["kafka_brokers"] = ",".join(brokers)
    server = next((part.address for part in ready if part.name == "postgres"), None)
    if read.database_url is None and server is not None:
        password = quote(kept.secrets()[folder.POSTGRES_PASSWORD], safe="")
        found["database_url"] = (
            f"postgresql://{postgres.USER}:{password}@{server}/{postgres.DATABASE}"
        )
    return read.model_copy(update=found)
