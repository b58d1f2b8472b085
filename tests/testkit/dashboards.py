"""What Prometheus and Grafana are told in compose/: rules, panels, and the metrics they name."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.testkit import promql

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "compose" / "prometheus"
GRAFANA = ROOT / "compose" / "grafana"
# Put on by Prometheus itself.
BY_PROMETHEUS = {"job", "instance"}
_HOLE = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class Shown(NamedTuple):
    """An expression, where it stands, and the labels that the words beside it name."""

    where: str
    expression: promql.Expression
    holes: set[str]


def rules() -> list[dict[str, Any]]:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    found = []
    for name in config["rule_files"]:
        for group in yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["groups"]:
            found += group["rules"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboards() -> dict[str, dict[str, Any]]:
    paths = sorted((GRAFANA / "dashboards").glob("*.json"))
    return {path.name: json.loads(path.read_text("utf-8")) for path in paths}


def recorded() -> dict[str, set[str]]:
    """The labels of each number that a rule records."""
    return {
        rule["record"]: promql.read(rule["expr"]).listed - {"le"}
        for rule in rules()
        if "record" in rule
    }


def everything() -> list[Shown]:
    found = []
    for rule in rules():
        text = " ".join(rule.get("annotations", {}).values())
        holes = set(_HOLE.findall(text))
        where = rule.get("alert") or rule["record"]
        found.append(Shown(where, promql.read(rule["expr"]), holes))
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                holes = set(_HOLE.findall(target["legendFormat"]))
                where = f"{name}: {panel['title']}"
                found.append(Shown(where, promql.read(target["expr"]), holes))
    return found


def unknown(labels_of: dict[str, set[str]]) -> list[str]:
    """What is named and is not there, if these are the metrics with their labels."""
    known = {**labels_of, **recorded(), "up": set()}
    wrong = []
    for where, expression, holes in everything():
        has: set[str] = set(BY_PROMETHEUS)
        for metric, matchers in expression.selectors:
            if metric not in known:
                wrong.append(f"{where}: no metric {metric}")
                continue
            its = known[metric] | BY_PROMETHEUS
            has |= its
            absent = {label for label, _, _ in matchers} - its
            wrong += [f"{where}: {metric} has no label {label}" for label in sorted(absent)]
        wrong += [
            f"{where}: nothing has the label {label}"
            for label in sorted((expression.listed | holes) - has)
        ]
    return wrong
