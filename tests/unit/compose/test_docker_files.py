"""The Docker files, held to what can be checked without an engine.

They are valid by the compose specification, start exact versions of everything, pass only settings
that the services read, ask for their secrets, and claim no command that the command line lacks.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from compose.embedded import postgres, services
from compose.provisioning import ProvisionSettings
from ingress.settings import IngressSettings
from plumbing import settings
from processor.settings import ProcessorSettings
from sinks.settings import SinkSettings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "compose"
FILE = (COMPOSE / "compose.yaml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
DOCKERFILE = (COMPOSE / "Dockerfile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

BROKERS = [name for name in SERVICES if name.startswith("kafka")]
OWN = [name for name, service in SERVICES.items() if "build" in service]
ONE_SHOT = ["provision"]
PLANNED = [name for name, service in SERVICES.items() if "planned" in service.get("profiles", [])]

READ_BY: dict[str, type[settings.ServiceSettings]] = {
    "provision": ProvisionSettings,
    "ingress": IngressSettings,
    "processor": ProcessorSettings,
    "processor-2": ProcessorSettings,
    "sink": SinkSettings,
}

SECURITY = "the brokers of this file are reached within its own network, in plain text"
OMITTED = {
    "ALLOW_BROKER_TXN_TIMEOUT_MS": "the brokers of this file have the short time-out",
    "CRASH_AT": "for rehearsals: development only",
    "CRASH_CHANCE": "for rehearsals: development only",
    "DEMO_DATA": "read by `streamledger up` alone",
    **{
        name.upper(): SECURITY
        for name in settings.KafkaSettings.model_fields
        if name.startswith(("kafka_security", "kafka_sasl", "kafka_oauth", "kafka_ssl"))
    },
}
# What this file itself decides, by another variable or with a default of its own.
DIFFERENT = {"APP_ENV", "KAFKA_BROKERS", "REPLICATION_FACTOR"}

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<form>:[-?])(?P<text>[^}]*)\}")
SECRETS = {
    *("POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD"),
    *(
        name.upper()
        for kind in READ_BY.values()
        for name, field in kind.model_fields.items()
        # The registry of this file has no password.
        if settings.metadata(field)["secret"] and name != "schema_registry_url"
    ),
}
OPTIONAL_SECRETS = {"ADMIN_PASSWORD", "SIGNING_KEY_PREVIOUS"}
EXACT_VERSION = re.compile(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9-]+)?")


def env_file(name: str) -> dict[str, str]:
    lines = (COMPOSE / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(given: dict[str, str]) -> dict[str, Any]:
    """The document as compose would see it with these variables."""
    return yaml.safe_load(  # type: ignore[no-any-return]  # PyYAML knows no schema
        VARIABLE.sub(lambda found: given.get(found["name"], found["text"]), FILE)
    )


def test_the_file_follows_the_compose_specification() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(DOCUMENT)


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_an_exact_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert EXACT_VERSION.fullmatch(tag), SERVICES[name]["image"]
    if name in OWN:
        assert tag == PROJECT["project"]["version"]


def test_kafka_and_postgres_are_the_versions_that_the_embedded_runtime_has() -> None:
    assert {SERVICES[name]["image"] for name in BROKERS} == {"apache/kafka:4.2.1"}
    assert SERVICES["postgres"]["image"] == "postgres:17.11"
    program, *options = SERVICES["postgres"]["command"]
    assert program == "postgres"
    assert options[::2] == ["-c"] * len(postgres.SETTINGS)
    assert dict(each.split("=") for each in options[1::2]) == postgres.SETTINGS


@pytest.mark.parametrize("name", OWN)
def test_what_a_service_reads_is_passed_or_omitted_for_a_reason(name: str) -> None:
    """Else a setting in compose/.env would be dropped in silence."""
    read = {field.upper() for field in READ_BY[name].model_fields}
    passed = SERVICES[name]["environment"].keys()
    omitted = read & OMITTED.keys()
    assert passed <= read, "what is passed is read"
    assert passed.isdisjoint(omitted)
    assert read - passed == omitted, "what is read is passed, or omitted for a reason"


def test_what_is_omitted_is_read_by_a_service() -> None:
    read = {field.upper() for kind in READ_BY.values() for field in kind.model_fields}
    assert OMITTED.keys() <= read
    assert all(OMITTED.values())


def test_every_variable_is_in_the_example_and_nothing_else() -> None:
    used = {found["name"] for found in VARIABLE.finditer(FILE)}
    lines = (COMPOSE / "env.example").read_text().splitlines()
    shown = {line for line in lines if re.match("#[A-Z0-9_]+=", line)}
    # With the defaults that the whole list of settings has.
    assert shown - {"#APP_ENV=production"} <= {*(ROOT / ".env.example").read_text().splitlines()}
    optional = {line[1:].split("=")[0] for line in shown}
    assert optional.isdisjoint(env_file("env.example"))
    assert used == optional | env_file("env.example").keys() | env_file("cluster.env").keys()


@pytest.mark.parametrize("name", OWN)
def test_a_setting_is_passed_by_its_own_name_without_another_default(name: str) -> None:
    """Where it is not what this file is about: its default is the service's own, as it is unset."""
    for setting, value in SERVICES[name]["environment"].items():
        found = VARIABLE.fullmatch(str(value))
        if found is not None and setting not in DIFFERENT:
            assert (found["name"], found["text"] if found["form"] == ":-" else "") == (setting, "")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - set(ONE_SHOT)))
def test_every_service_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_wait_can_end(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        ends = other in ONE_SHOT
        assert wait["condition"] == (
            "service_completed_successfully" if ends else "service_healthy"
        )
        # A service that no profile starts cannot be waited for.
        if SERVICES[other].get("profiles"):
            assert wait["required"] is False
    if name in OWN and name not in ONE_SHOT:
        assert "provision" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_port_is_published_on_the_loopback_address_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_path_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (COMPOSE / source).exists()
        else:
            assert source in DOCUMENT["volumes"]


def test_secrets_have_no_default_and_are_all_in_the_example() -> None:
    required = {found["name"] for found in VARIABLE.finditer(FILE) if found["form"] == ":?"}
    assert required == env_file("env.example").keys()
    assert not any(env_file("env.example").values())
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if name in SECRETS and name not in OPTIONAL_SECRETS:
                assert ":?" in value
            elif name in SECRETS:
                assert value == f"${{{name}:-}}"


def test_each_service_has_only_its_own_secrets() -> None:
    """A service that is broken into gives away what it has."""
    held = {
        name: {found["name"] for found in VARIABLE.finditer(str(SERVICES[name]["environment"]))}
        & (env_file("env.example").keys() | OPTIONAL_SECRETS)
        for name in SERVICES
        if "environment" in SERVICES[name]
    }
    assert {name: secrets for name, secrets in held.items() if secrets} == {
        "postgres": {"POSTGRES_PASSWORD"},
        "provision": {
            "POSTGRES_PASSWORD",
            "INGRESS_DATABASE_PASSWORD",
            "SINK_DATABASE_PASSWORD",
        },
        "ingress": {"INGRESS_DATABASE_PASSWORD", "SIGNING_KEY", *OPTIONAL_SECRETS},
        "sink": {"SINK_DATABASE_PASSWORD"},
        "grafana": {"GRAFANA_ADMIN_PASSWORD"},
    }


def test_services_have_the_logins_that_the_embedded_runtime_gives_them() -> None:
    """And no service has the owner's."""
    names = ("provision", *(service.name for service in services.SERVICES))
    urls = {name: SERVICES[name]["environment"].get("DATABASE_URL") for name in names}
    found = {name: url.split("/")[2].split(":")[0] for name, url in urls.items() if url}
    assert found == {
        "provision": postgres.USER,
        **{each.name: each.login[0] for each in services.SERVICES if each.login is not None},
    }


def test_no_variable_has_the_name_of_a_setting_that_a_host_may_have_for_itself() -> None:
    """A shell that exports KAFKA_BROKERS for its own use must not send the containers there."""
    used = {found["name"] for found in VARIABLE.finditer(FILE)}
    assert used.isdisjoint({"KAFKA_BROKERS", "DATABASE_URL", "HTTP_PORT", "METRICS_PORT"})


@pytest.mark.parametrize("name", BROKERS)
def test_brokers_are_safe(name: str) -> None:
    broker = SERVICES[name]["environment"]
    timeout_ms = broker["KAFKA_TRANSACTION_MAX_TIMEOUT_MS"]
    assert timeout_ms == settings.SHORT_BROKER_TXN_TIMEOUT_MS
    assert broker["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"
    assert broker["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_one_broker_is_a_cluster_of_its_own() -> None:
    services = filled_in({})["services"]
    running = [name for name in BROKERS if "profiles" not in services[name]]
    assert running == ["kafka"]
    broker = services["kafka"]["environment"]
    assert broker["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka:9093"
    assert {str(broker[name]) for name in broker if name.endswith("REPLICATION_FACTOR")} == {"1"}
    assert services["ingress"]["environment"]["KAFKA_BROKERS"] == "kafka:19092"


def test_three_brokers_keep_three_copies_and_wait_for_two() -> None:
    given = env_file("cluster.env")
    assert given.keys() <= {found["name"] for found in VARIABLE.finditer(FILE)}
    document = filled_in(given)
    assert document["name"] != filled_in({})["name"], "the volumes of the two must not mix"
    services = document["services"]
    voters = services["kafka"]["environment"]["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    for name in BROKERS:
        broker = services[name]["environment"]
        assert f"{broker['KAFKA_NODE_ID']}@{name}:9093" in voters
        assert f"INTERNAL://{name}:19092" in broker["KAFKA_ADVERTISED_LISTENERS"]
        copies = {str(broker[key]) for key in broker if key.endswith("REPLICATION_FACTOR")}
        in_sync = {str(broker[key]) for key in broker if re.search("MIN_(ISR|INSYNC)", key)}
        assert (copies, in_sync) == ({"3"}, {"2"})
    assert len(voters) == len(BROKERS) == 3
    bootstrap = services["ingress"]["environment"]["KAFKA_BROKERS"].split(",")
    assert bootstrap == [f"{name}:19092" for name in BROKERS]


def words(service: dict[str, Any]) -> list[list[str]]:
    """The command lines of `streamledger` that a service starts."""
    if "entrypoint" not in service:
        return [service["command"]]
    lines = service["command"][0].split(" && ")
    assert all(line.startswith("streamledger ") for line in lines)
    return [line.split()[1:] for line in lines]


@pytest.mark.parametrize("name", OWN)
def test_a_service_is_planned_until_the_command_line_has_it(name: str) -> None:
    for line in words(SERVICES[name]):
        asked = subprocess.run(
            [sys.executable, "-m", "compose.cli.main", *line, "--help"],
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        exists = asked.returncode == 0
        assert exists == (name not in PLANNED), f"streamledger {' '.join(line)}: {asked.stderr}"


def test_prometheus_asks_services_at_the_ports_that_they_show_numbers_on() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus/prometheus.yml").read_text())
    asked = {
        target["names"][0]: target["port"]
        for job in config["scrape_configs"]
        for target in job.get("dns_sd_configs", [])
    }
    shown = {
        name: SERVICES[name]["environment"].get("METRICS_PORT")
        or SERVICES[name]["environment"]["HTTP_PORT"]
        for name in OWN
        if name not in ONE_SHOT
    }
    assert asked.keys() == {name_in_the_network(name) for name in shown}
    for name, port in shown.items():
        assert asked[name_in_the_network(name)] == port


def name_in_the_network(name: str) -> str:
    """By which each of several services that do the same is found."""
    given = SERVICES[name].get("networks", {}).get("default", {}).get("aliases", [name])
    assert len(given) == 1
    return str(given[0])


def test_each_processor_is_found_and_has_a_disk_of_its_own() -> None:
    processors = [name for name in SERVICES if SERVICES[name].get("command") == ["processor"]]
    assert len(processors) > 1
    assert {name_in_the_network(name) for name in processors} == {"processors"}
    assert len({volume for name in processors for volume in SERVICES[name]["volumes"]}) == len(
        processors
    )


def test_grafana_reads_prometheus() -> None:
    folder = COMPOSE / "grafana/provisioning/datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_image_is_made_of_the_lock_and_every_package() -> None:
    assert all((ROOT / source).exists() for source in copied())
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())
    assert "pip install --require-hashes -r requirements/run.txt" in DOCKERFILE
    assert {Path(source).name for source in copied()} >= {"pyproject.toml", "README.md", "LICENSE"}


def test_the_build_sees_what_it_copies_and_no_secret() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = [rule[1:].rstrip("/") for rule in rules if rule.startswith("!")]
    assert sorted(let_in) == sorted(copied())
    kept_out = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    assert any(fnmatch(".env", rule) for rule in kept_out)


def test_the_image_does_not_run_as_root() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    for stage in stages:
        base = stage.split()[0]
        assert EXACT_VERSION.fullmatch(base.rpartition(":")[2]), base
    user = re.findall(r"^USER (\S+)$", stages[-1], re.MULTILINE)[-1]
    assert not re.match(r"(root|0)(:|$)", user)
    assert stages[-1].index("USER ") < stages[-1].index("ENTRYPOINT ")
