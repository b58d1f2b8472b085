"""The services that `streamledger up` runs, in the order of their start: one line each."""

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Service:
    """`port_setting` names the setting with the port on which it answers at `ready_path`; that is
    the one asked for with --port where there is no `first_port`, from which on one is free."""

    name: str
    port_setting: str
    ready_path: str
    first_port: int | None = None
    copies_option: str | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "compose.cli", self.name]


SERVICES = (
    Service("processor", "METRICS_PORT", "/ready", 9400, "processors"),
    Service("sink", "METRICS_PORT", "/ready", 9500),
    Service("ingress", "HTTP_PORT", "/ready"),
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
