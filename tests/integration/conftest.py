"""What tests share because starting it takes longer than any of them: the ledger behind HTTP, and a
broker that they may stop.
"""

from collections.abc import Iterator

import pytest

from compose.embedded import kafka as embedded_kafka
from tests.testkit import brokers, pipeline
from tests.testkit import environment as stages
from tests.testkit.ledger_api import Api, Ingress, beside


@pytest.fixture(scope="session")
def api(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    with (
        pipeline.made(kafka, postgres, template, folder) as made,
        beside(made, folder / "ingress") as ingress,
    ):
        yield Api(ingress, made)


@pytest.fixture
def ingress(api: Api) -> Ingress:
    return api.ingress


@pytest.fixture(scope="session")
def mortal_kafka() -> Iterator[embedded_kafka.Cluster]:
    """A broker that nobody else uses meanwhile; who stops it has it come back."""
    with brokers.data_folder() as own, stages.running_kafka(own, 1) as started:
        yield started
