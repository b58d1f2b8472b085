"""The ledger behind HTTP that the tests of the API share: starting one takes longer than any of
them.
"""

from collections.abc import Iterator

import pytest

from tests import pipeline
from tests.api import Api, Ingress, beside


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
