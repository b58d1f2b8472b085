"""Kafka and Postgres of a data folder, with the programs that they need fetched first."""

import threading
from pathlib import Path

from compose.embedded import artifacts, kafka, maven, os_user, postgres
from compose.embedded.artifacts import Progress, Silent
from compose.embedded.data_dir import POSTGRES_PASSWORD, DataFolder

KAFKA = "kafka"
TOOLS = "kafka-tools"
POSTGRES = "postgres"


def fetch(wanted: list[str], progress: Progress, stop: threading.Event) -> list[Path]:
    """The files of the programs named; what is not in the user's cache is downloaded."""
    here = artifacts.platform_name()  # refuses where none of it is known to run
    sections = [f"{POSTGRES} {here}" if name == POSTGRES else name for name in wanted]
    listed = [artifact for section in sections for artifact in artifacts.locked(section)]
    return artifacts.ensure(listed, artifacts.user_cache(), maven.download, progress, stop)


def cluster(
    folder: DataFolder, options: kafka.KafkaOptions, stop: threading.Event
) -> kafka.Cluster:
    jars = fetch([KAFKA], Silent(), stop)
    return kafka.Cluster(folder.kafka, jars, folder.processes, folder.logs, options)


def server(
    folder: DataFolder, options: postgres.PostgresOptions, stop: threading.Event
) -> postgres.Server:
    (jar,) = fetch([POSTGRES], Silent(), stop)
    who = os_user.choose()
    programs = postgres.unpack(jar, artifacts.user_cache(), who, stop)
    password = folder.secrets()[POSTGRES_PASSWORD]
    return postgres.Server(
        folder.postgres, programs, folder.processes, folder.logs, password, who, options
    )
