"""The services that `streamledger up` runs, in the order of their start: one line each."""

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from compose.embedded.data_dir import INGRESS_PASSWORD, SINK_PASSWORD
from compose.provisioning import INGRESS_ROLE, SINK_ROLE
from ingress.settings import IngressSettings
from plumbing import setting_names
from plumbing.settings import ServiceSettings
from processor.settings import ProcessorSettings
from sinks.settings import SinkSettings

PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Service:
    """`port_setting` names the setting with the port on which it answers at `ready_path`; that is
    the one of --port where there is no `first_port`, from which on one is free.
    `login` is its role in Postgres and which secret of the data folder is its password."""

    name: str
    settings: type[ServiceSettings]
    port_setting: str
    ready_path: str
    first_port: int | None = None
    copies_option: str | None = None
    login: tuple[str, str] | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "compose.cli.main", self.name]

    def reads(self, name: str) -> bool:
        return name.lower() in self.settings.model_fields

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Without the settings, secrets among them, that are for others."""
        return {
            name: value
            for name, value in given.items()
            if name not in setting_names.ALL or self.reads(name)
        }


SERVICES = (
    Service("processor", ProcessorSettings, "METRICS_PORT", "/ready", 9400, "processors"),
    Service("sink", SinkSettings, "METRICS_PORT", "/ready", 9500, login=(SINK_ROLE, SINK_PASSWORD)),
    Service(
        "ingress",
        IngressSettings,
        "HTTP_PORT",
        "/ready",
        login=(INGRESS_ROLE, INGRESS_PASSWORD),
    ),
)


def answers(url: str) -> bool:
    """Whether a GET of the URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:  # refused, timed out, or an HTTP error
        return False


def copies(service: Service, options: Mapping[str, int]) -> int:
    return options[service.copies_option] if service.copies_option else 1
