"""`-p tests.compiled_first`: tests run what was compiled, if anything could be."""

from processor import compiled

compiled.prefer()


def pytest_report_header() -> str:
    return f"what decides is {compiled.how}"
