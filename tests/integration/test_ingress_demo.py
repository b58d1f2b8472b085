"""The people of the walk-through: there after a first start, left alone by the next.

And the README's transfer between them: run as it stands, and answered as it says.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from compose.embedded import demo
from tests.api import PREFIX, Api

README = Path(__file__).parents[2] / "README.md"
RUN_S = 120


def test_demo_people_have_money_and_an_operator_beside_them(api: Api) -> None:
    ingress = api.ingress
    url = f"http://127.0.0.1:{ingress.port}"
    for _ in range(2):
        demo.seed(url, api.database, PREFIX)
    for _, _, email in demo.PEOPLE:
        told = ingress.login(email, demo.PASSWORD).json
        wallet = ingress.get("/wallet", told["access_token"]).json["wallet"]
        assert wallet["balance"] == demo.MONEY
    operator = ingress.login(demo.OPERATOR, demo.PASSWORD).json
    assert operator["user"]["role"] == "operator"


def script() -> str:
    section = README.read_text("utf-8").partition("## Send a transfer")[2].partition("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ") or not line]
    return "\n".join(lines)


def test_the_transfer_of_the_readme_lands(api: Api, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{api.ingress.port}"
    demo.seed(url, api.database, PREFIX)
    written = script()
    ours = f"{sys.executable} -m compose.cli"
    run = written.replace("http://127.0.0.1:8000", url).replace(".venv/bin/streamledger", ours)
    told = subprocess.run(
        ["sh", "-euc", run],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **api.pipeline.settings},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    answers = [line[2:] for line in written.splitlines() if line.startswith("# {")]
    assert len(answers) == 2
    for answer in answers:
        pieces = [re.escape(piece) for piece in answer.split("…")]
        assert re.search(".*".join(pieces), told.stdout), (answer, told.stdout)
    assert '"ada"' in told.stdout
