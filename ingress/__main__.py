"""`python -m ingress`: reads the settings and serves until it is stopped."""

import sys

from ingress import service
from plumbing import failures

if __name__ == "__main__":
    try:
        service.run()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
