"""`python -m processor`: how the modules that decide are run is chosen, and then they are run."""

import sys
from pathlib import Path

from plumbing import failures
from processor import compiled


def main(data: Path | None = None) -> None:
    """Raises a Failure for what an operator can act on."""
    compiled.prefer()
    from processor import service

    service.run(data)


if __name__ == "__main__":
    try:
        main()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
