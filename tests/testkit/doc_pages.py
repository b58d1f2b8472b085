"""What the docs' pages tell people to run: their fenced blocks, and the folder to run them in."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NOT_RUN = "Not run by a test"

_FENCE = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int
    # What is after the fence: the language, and for lines of a shell what they need.
    info: str
    text: str
    # Whether the paragraph before it says that it is not run.
    runs: bool


def blocks(page: str) -> list[Block]:
    return list(_blocks((ROOT / "docs" / page).read_text("utf-8")))


def _blocks(text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        line = text.count("\n", 0, found.start()) + 1
        yield Block(line, found[1], found[2], NOT_RUN not in " ".join(before.split()))


def examples(to: Path) -> Path:
    """A copy of the examples where the pages say that they are, with what they name beside them."""
    made = to / "docs" / "examples"
    shutil.copytree(ROOT / "docs" / "examples", made)
    published = ROOT / "schemas" / "published"
    shutil.copytree(published, to / "schemas" / "published")
    return made
