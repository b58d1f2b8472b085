"""`-p tests.compiled_first`: tests run what was compiled, if anything could be."""

import os

from processor import compiled

compiled.prefer()
if os.environ.get("CI"):
    assert compiled.how == "compiled", compiled.how


def pytest_report_header() -> str:
    return f"what decides is {compiled.how}"
