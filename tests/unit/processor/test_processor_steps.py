"""The steps of a lane, and its crash points between them, are those of the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
LANE = (ROOT / "processor" / "lanes" / "lane.py").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "failure-scenarios.md").read_text(encoding="utf-8")
PROCESSOR = PAGE.partition("\n## The processor\n")[2].partition("\n## ")[0]


def test_each_step_has_the_name_that_the_docs_give_it() -> None:
    steps = dict(re.findall(r"^ +# ([A-E1-4])\. (.+)$", LANE, re.MULTILINE))
    assert sorted(steps) == [*"1234", *"ABCDE"]
    text = " ".join(PROCESSOR.split())
    names = [f"{step}. {name[0].lower()}{name[1:]}" for step, name in steps.items()]
    assert [name for name in names if name not in text] == []


def test_each_crash_point_has_a_row_and_no_other_has_one() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "processor").rglob("*.py")))
    points = set(re.findall(r'reach\("([^"]+)"\)', code))
    rows = re.findall(r"^\| (?:in|before|between|after) [^|]*\|([^|]*)\|", PROCESSOR, re.MULTILINE)
    assert points == {point for row in rows for point in re.findall(r"`([^`]+)`", row)}
