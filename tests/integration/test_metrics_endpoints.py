"""Each metric and label that rules and dashboards name is one that the services really answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from plumbing import metrics
from tests.testkit import dashboards, pipeline
from tests.testkit.pipeline import Pipeline
from tests.testkit.programs import Program
from tests.testkit.waiting import eventually

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Ingress(Program):
    MODULE = "ingress"


class Answers:
    """What some answers of /metrics have together."""

    def __init__(self, texts: list[str]) -> None:
        self.labels: dict[str, set[str]] = {}
        self.values: dict[tuple[str, str], set[str]] = {}
        declared = {metric.name: metric for metric in metrics.ALL}
        for text in texts:
            for family in text_string_to_metric_families(text):
                for suffix in SUFFIXES[family.type]:
                    # What has not happened yet has a name and no labels.
                    metric = declared.get(family.name + (suffix if suffix == "_total" else ""))
                    labels = set(metric.labels if metric else ())
                    labels |= {"le"} if suffix == "_bucket" else set()
                    self.labels.setdefault(family.name + suffix, labels)
                for sample in family.samples:
                    if sample.labels:
                        self.labels[sample.name] = set(sample.labels)
                    for label, value in sample.labels.items():
                        self.values.setdefault((sample.name, label), set()).add(value)


@pytest.fixture
def ledger(kafka: str, postgres: str, template: str, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline.made(kafka, postgres, template, tmp_path / "ledger") as made:
        yield made


def test_all_that_is_named_is_answered(ledger: Pipeline, tmp_path: Path) -> None:
    ingress = Ingress(1, tmp_path / "ingress", ledger.settings)
    ingress.start(HTTP_PORT=str(ingress.port))
    try:
        commands: list[dict[str, object]] = [
            {"kind": "open_account", "account": "ada", "type": "wallet", "currency": "NGN"},
            {"kind": "debit", "account": "ada", "amount": 1},
            {"kind": "debit", "account": "ada", "amount": -1},
        ]
        lines = [json.dumps({**each, "id": str(n)}) + "\n" for n, each in enumerate(commands)]
        ledger.streamledger("produce", "--wait", given="".join(lines))

        def answered() -> bool:
            assert ingress.running(), ingress.tail()
            return ingress.get("/health")[0] == 200

        eventually(answered, 60)

        def answers() -> Answers:
            texts = [each.get("/metrics")[1] for each in (ledger.worker, ledger.sink, ingress)]
            assert all(texts)
            return Answers(texts)

        assert dashboards.unknown(answers().labels) == []
        eventually(lambda: not missing(answers()), 30)
    finally:
        ingress.kill()


def missing(answers: Answers) -> list[str]:
    """Labels' values that are asked for and that nobody has."""
    wrong = []
    for where, expression, _ in dashboards.everything():
        for metric, matchers in expression.selectors:
            for label, sign, value in matchers:
                if sign == "=" and label != "job":
                    there = answers.values.get((metric, label), set())
                    wrong += [] if value in there else [f"{where}: {label}={value} of {metric}"]
    assert wrong == []
    return wrong
