"""`python -m ingress`: reads the settings and serves until told to stop."""

import sys

import uvloop

from ingress import service
from ingress.settings import IngressSettings
from plumbing import failures, memory


def main() -> None:
    """Raises a Failure for what an operator can act on."""
    memory.collect_rarely()
    uvloop.run(service.run(IngressSettings.read()))


if __name__ == "__main__":
    try:
        main()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
