"""`-p tests.progress --part NAME`: progress of one of several test runs that share a terminal.

Prints a line every half minute, and each failure at once, in place of a dot for each test.
"""

import time
from collections.abc import Generator, Mapping

import pytest

EVERY_S = 30.0

Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", required=True, help="name of this run in its lines of progress")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Progress(config))


class Progress:
    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self._part = config.getoption("--part")
        self._started_at = self._printed_at = time.monotonic()
        self._collected = self._finished = self._failed = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = len(session.items)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Status, Status]:
        category, _, word = yield
        return category, "", word

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed += 1
            self._print(f"FAILED {report.nodeid} ({report.when})")

    def pytest_runtest_logfinish(self) -> None:
        self._finished += 1
        now = time.monotonic()
        if now - self._printed_at >= EVERY_S:
            self._printed_at = now
            minutes = (now - self._started_at) / 60
            self._print(
                f"{self._finished} of {self._collected} tests, {self._failed} failures,"
                f" {minutes:.1f} min"
            )

    def _print(self, text: str) -> None:
        terminal = self._plugins.get_plugin("terminalreporter")
        assert terminal is not None, "progress is printed through pytest's own reporter"
        terminal.write_line(f"{self._part}: {text}")
