"""An end that an operator can act on: plain lines to print and the exit code to end with.

Raised by whatever knows what is wrong, printed once, by the command line. It is not for broken
invariants or for a business "no": those crash, or are events.
"""

import sys


class Failure(Exception):
    """`exit_code` 1: could not be done. 2: what was asked for, or a setting, is wrong."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def report(failure: Failure) -> int:
    """Prints the lines and gives the exit code."""
    for line in failure.lines:
        sys.stderr.write(f"streamledger: {line}\n")
    return failure.exit_code
