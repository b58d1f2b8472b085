"""Each crash point of the ingress is documented, and a test crashes the ingress there."""

import re
from pathlib import Path

from tests.integration import test_ingress_money, test_ingress_registration

ROOT = Path(__file__).parents[3]


def test_each_crash_point_is_tested_and_documented() -> None:
    code = "".join(path.read_text() for path in (ROOT / "ingress").rglob("*.py"))
    steps = set(re.findall(r'\.reach\("([^"]+)"\)', code))
    tried = {
        *test_ingress_money.STEPS,
        *test_ingress_registration.NOTHING,
        *test_ingress_registration.ALL_OF_IT,
    }
    assert tried == steps
    page = (ROOT / "docs" / "failure-scenarios.md").read_text()
    assert {step for step in steps if f"`{step}`" not in page} == set()
