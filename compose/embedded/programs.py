"""Kafka and Postgres of a data folder, with the programs that they need fetched first."""

import threading
from pathlib import Path
from typing import Final

from compose.embedded import artifacts, kafka, maven, os_user, postgres
from compose.embedded.artifacts import Progress, Silent
from compose.embedded.data_dir import POSTGRES_PASSWORD, DataFolder

KAFKA = "kafka"
TOOLS = "kafka-tools"
POSTGRES = "postgres"
SILENT: Final = Silent()


def fetch(wanted: list[str], progress: Progress, stop: threading.Event) -> list[Path]:
    """The files of the programs named; what is not in the user's cache is downloaded. Kafka and
    Postgres do not wait for each other: the one that is there first starts."""
    here = artifacts.platform_name()  # refuses where none of it is known to run
    files = []
    for name in wanted:
        listed = artifacts.locked(f"{POSTGRES} {here}" if name == POSTGRES else name)
        work = f"fetching/{name}"
        files += artifacts.ensure(
            listed, artifacts.user_cache(), maven.download, progress, stop, work
        )
    return files


def cluster(
    folder: DataFolder,
    options: kafka.KafkaOptions,
    stop: threading.Event,
    download: Progress = SILENT,
) -> kafka.Cluster:
    jars = fetch([KAFKA], download, stop)
    return kafka.Cluster(folder.kafka, jars, folder.processes, folder.logs, options)


def server(
    folder: DataFolder,
    options: postgres.PostgresOptions,
    stop: threading.Event,
    download: Progress = SILENT,
) -> postgres.Server:
    (jar,) = fetch([POSTGRES], download, stop)
    who = os_user.choose()
    programs = postgres.unpack(jar, artifacts.user_cache(), who, stop)
    password = folder.secrets()[POSTGRES_PASSWORD]
    return postgres.Server(
        folder.postgres, programs, folder.processes, folder.logs, password, who, options
    )
