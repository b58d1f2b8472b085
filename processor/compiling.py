"""Makes machine code of the modules that decide: mypyc makes C of them, a C compiler the rest.

Where there is no C compiler one is brought for the while, from where Python's packages come from.
What cannot be had is a Failure that names it; nothing but speed is missing then.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from plumbing.failures import Failure
from processor import compiled

# What is run for each record. Of a class mypyc keeps no option (frozen, array_like and the like)
# and no type but the plainest: Structs are defined elsewhere.
MODULES = (
    "processor/cache.py",
    "processor/due.py",
    "processor/inputs.py",
    "processor/outputs.py",
    "processor/table.py",
    "processor/writer.py",
    "processor/rules/[a-z]*.py",
    "schemas/codecs.py",
    "schemas/ids.py",
    "schemas/partitioning.py",
    "schemas/state_keys.py",
)
UNTIL_THEN = "processors run the sources until then: the same, but slower"
COMPILERS = ("cc", "gcc", "clang")
# By itself it would compile for the very CPU that it runs on.
BROUGHT = shlex.join([sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"])
BROUGHT_LOCK = Path(__file__).with_name("compiler.lock")
# What was made is loaded once before anybody may take it.
LOAD = """
import sys
from pathlib import Path
from processor import compiled
compiled.use(Path(sys.argv[1]))
from processor import writer
"""


def compile() -> bool:
    """Whether there was anything to do."""
    if compiled.made() is not None:
        return False
    try:
        _compile()
    except OSError as error:
        raise Failure(f"it cannot be compiled here: {error}", UNTIL_THEN) from None
    except Failure as failure:
        raise Failure(*failure.lines, UNTIL_THEN) from None
    return True


def _compile() -> None:
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise Failure("mypyc is not installed: pip install 'streamledger[compile]'")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise Failure(
            f"the headers of this Python are not installed ({headers}): install the package "
            f"{version}-dev (Debian, Ubuntu: apt install {version}-dev)"
        )
    sys.stderr.write("compiling what decides (half a minute or so)\n")
    compiled.FOLDER.mkdir(exist_ok=True)
    with (
        TemporaryDirectory(prefix="streamledger-compile-") as sources,
        TemporaryDirectory(dir=compiled.FOLDER, prefix="new-") as made,
    ):
        _build(Path(sources), Path(made))


def modules(packages: Path) -> list[Path]:
    return sorted(path for pattern in MODULES for path in packages.glob(pattern))


def _build(sources: Path, made: Path) -> None:
    for package in compiled.OF:
        shutil.copytree(
            compiled.PACKAGES / package,
            sources / package,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
        )
    name = compiled.name_of(sources)
    brought = sources / "brought"
    compiler = next((path for each in COMPILERS if (path := shutil.which(each))), None)
    if compiler is None:
        _bring(brought)
    cc = BROUGHT if compiler is None else shlex.quote(compiler)
    _run(
        "the modules cannot be compiled",
        *("-m", "mypyc", "--config-file=", "--ignore-missing-imports"),
        *(str(path.relative_to(sources)) for path in modules(sources)),
        cwd=sources,
        # Not by what this Python was built with, on another machine.
        CC=cc,
        LDSHARED=f"{cc} -shared",
        CFLAGS="-Wno-error",
        PYTHONPATH=str(brought),
        ZIG_GLOBAL_CACHE_DIR=str(sources / "zig"),
        ZIG_LOCAL_CACHE_DIR=str(sources / "zig"),
        MYPYC_DEBUG_LEVEL="0",
    )
    for file in sources.rglob(f"*{compiled.SUFFIX}"):
        place = file.relative_to(sources)
        if place.parts[0] in compiled.OF or len(place.parts) == 1:
            _keep(file, made / place)
    _run("what was compiled cannot be loaded", "-c", LOAD, str(made), cwd=compiled.PACKAGES)
    _publish(made, name)


def _bring(folder: Path) -> None:
    if find_spec("pip") is None:
        raise Failure("there is no C compiler: install gcc or clang")
    sys.stderr.write("no C compiler here: one is brought for the while (100 MB)\n")
    _run(
        "there is no C compiler, and none can be brought; install gcc or clang",
        *("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"),
        *("--retries", "1", "--timeout", "10"),
        *("--target", str(folder), "--require-hashes", "-r", str(BROUGHT_LOCK)),
        cwd=folder.parent,
    )


def _run(refusal: str, *arguments: str, cwd: Path, **environment: str) -> None:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Failure(f"{refusal}:", *ended.stdout.strip().splitlines()[-20:])


def _keep(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to)
    with to.open("rb") as kept:
        os.fsync(kept.fileno())


def _publish(made: Path, name: str) -> None:
    """In one step; somebody who made the same meanwhile was as good."""
    # For whoever runs processors here, as the sources are.
    for each in (made, *made.rglob("*")):
        each.chmod(0o755)
    try:
        made.rename(compiled.FOLDER / name)
    except OSError:
        if not (compiled.FOLDER / name).is_dir():
            raise
    # The sources may have become others meanwhile, and somebody may have made those.
    kept = {name, compiled.name_of(compiled.PACKAGES)}
    for other in compiled.FOLDER.iterdir():
        if other.name not in kept and not other.name.startswith("new-"):
            shutil.rmtree(other, ignore_errors=True)
