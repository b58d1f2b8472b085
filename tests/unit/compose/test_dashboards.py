"""Rules of Prometheus and dashboards of Grafana: they parse, are mounted, name what the list of
metrics has, and each alert has its paragraph in the docs.

What services really answer is in tests/integration/test_metrics_endpoints.py.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from plumbing import metrics
from tests.testkit import dashboards, promql
from tests.testkit.dashboards import GRAFANA, PROMETHEUS, ROOT

OPERATING = (ROOT / "docs" / "operating.md").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text("utf-8"))


def test_each_expression_can_be_read_and_there_are_some() -> None:
    assert len(dashboards.everything()) > 40
    assert len(dashboards.alerts()) > 10


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(rate(a[5m])",
        "sum(rate(a[5m]))]",
        "summ(a)",
        "sum by partition (a)",
        "a{b=c}",
        "a{b}",
        "a @@ b",
    ],
)
def test_the_reader_sees_what_is_no_expression(wrong: str) -> None:
    with pytest.raises(promql.Wrong):
        promql.read(wrong)


def test_the_reader_sees_names() -> None:
    read = promql.read('sum by (x) (rate(a_total{b="c", d=~"e|f"}[5m])) / on (y) s:t:u > 0.5')
    assert [selector.metric for selector in read.selectors] == ["a_total", "s:t:u"]
    assert read.selectors[0].matchers == (("b", "=", "c"), ("d", "=~", "e|f"))
    assert read.listed == {"x", "y"}


def test_they_name_metrics_and_labels_of_the_list_alone() -> None:
    declared: dict[str, set[str]] = {}
    for metric in metrics.ALL:
        labels = set(metric.labels)
        declared[metric.name] = labels
        if metric.kind == "histogram":
            del declared[metric.name]
            declared[f"{metric.name}_bucket"] = labels | {"le"}
            declared[f"{metric.name}_sum"] = declared[f"{metric.name}_count"] = labels
    of_processes = ("start_time_seconds", "cpu_seconds_total", "resident_memory_bytes")
    for name in (*of_processes, "open_fds", "max_fds"):
        declared[f"process_{name}"] = set()
    assert dashboards.unknown(declared) == []


def test_jobs_are_those_that_are_scraped() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    scraped = {job["job_name"] for job in config["scrape_configs"]}
    for where, expression, _ in dashboards.everything():
        for _, matchers in expression.selectors:
            for label, _, value in matchers:
                assert label != "job" or set(value.split("|")) <= scraped, where


def anchors() -> set[str]:
    titles = re.findall(r"^#+ (.+)$", OPERATING, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("alert", dashboards.alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_it_is_and_where_to_read_what_to_do(alert: dict[str, object]) -> None:
    annotations = alert["annotations"]
    assert isinstance(annotations, dict)
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    page, _, anchor = annotations["runbook"].partition("#")
    assert page == "docs/operating.md"
    assert anchor == str(alert["alert"]).lower()
    assert anchor in anchors()


def test_names_of_rules_are_unique() -> None:
    names = [rule.get("alert") or rule["record"] for rule in dashboards.rules()]
    assert len(names) == len(set(names))


def test_every_file_is_mounted() -> None:
    """And where the configuration looks for it."""
    mounted = {}
    for service in ("prometheus", "grafana"):
        for volume in COMPOSE["services"][service]["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                mounted[ROOT / "compose" / source] = target
    for path in (*PROMETHEUS.rglob("*"), *GRAFANA.rglob("*")):
        assert path.is_dir() or any(path.is_relative_to(each) for each in mounted), path
    assert mounted[PROMETHEUS] == "/etc/prometheus"
    (provider,) = provisioned("dashboards", "providers")
    assert mounted[GRAFANA / "dashboards"] == provider["options"]["path"]


def provisioned(kind: str, name: str) -> list[dict[str, dict[str, str]]]:
    (path,) = (GRAFANA / "provisioning" / kind).glob("*.yaml")
    found: list[dict[str, dict[str, str]]] = yaml.safe_load(path.read_text("utf-8"))[name]
    return found


@pytest.mark.parametrize("name", dashboards.dashboards())
def test_a_dashboard_names_its_datasource_and_its_panels(name: str) -> None:
    dashboard = dashboards.dashboards()[name]
    (source,) = provisioned("datasources", "datasources")
    wanted = {"type": source["type"], "uid": source["uid"]}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["uid"] == Path(name).stem
    places = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in places, f"{panel['title']} lies on another panel"
                places.add((x, y))
        if panel["type"] in ("row", "alertlist"):
            continue
        assert panel["datasource"] == wanted
        assert panel["targets"]
        assert [target["datasource"] for target in panel["targets"]] == [wanted] * len(
            panel["targets"]
        )
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))


def test_prometheus_own_check(capsys: pytest.CaptureFixture[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        with capsys.disabled():
            print("\nnot run: Prometheus' own check of its rules, for want of promtool")  # noqa: T201
        return
    config = PROMETHEUS / "prometheus.yml"
    subprocess.run([promtool, "check", "config", str(config)], check=True)
