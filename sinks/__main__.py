"""`python -m sinks`: reads the settings and runs until it is stopped."""

import sys

from plumbing import failures
from sinks import service

if __name__ == "__main__":
    try:
        service.run()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
