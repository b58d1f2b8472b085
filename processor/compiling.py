"""Makes machine code of the modules that decide: mypyc makes C of them, a C compiler the rest.

Where there is no C compiler one is brought for the while, from where Python's packages come from.
What cannot be had is a Failure that names it; nothing but speed is missing then.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from plumbing.failures import Failure
from processor import compiled

# What is run for each record. Of a class in here mypyc keeps no types but the simplest: none that
# is decoded may have others.
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
)
COMPILERS = ("cc", "gcc", "clang")
BROUGHT = Path(__file__).with_name("compiler.lock")


def compile() -> bool:
    """Whether there was anything to do."""
    if compiled.is_fresh():
        return False
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise Failure("mypyc is not installed: pip install 'streamledger[compile]'")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise Failure(
            f"the headers of this Python are not installed ({headers}): install the package "
            f"{version}-dev (Debian, Ubuntu: apt install {version}-dev)"
        )
    try:
        with TemporaryDirectory(prefix="streamledger-compile-") as folder:
            _build(Path(folder))
    except OSError as error:
        raise Failure(f"it cannot be compiled here: {error}") from None
    return True


def _build(folder: Path) -> None:
    for package in compiled.OF:
        shutil.copytree(
            compiled.PACKAGES / package,
            folder / package,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
        )
    made_of = compiled.digest(folder)
    modules = sorted(
        str(path.relative_to(folder)) for pattern in MODULES for path in folder.glob(pattern)
    )
    brought = folder / "brought"
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        _bring(brought)
        compiler = f"{sys.executable} -m ziglang cc"
    _run(
        "the modules cannot be compiled",
        *("mypyc", "--config-file=", "--ignore-missing-imports", *modules),
        cwd=folder,
        # Not by what this Python was built with, on another machine.
        CC=compiler,
        LDSHARED=f"{compiler} -shared",
        CFLAGS="-Wno-error",
        PYTHONPATH=str(brought),
        ZIG_GLOBAL_CACHE_DIR=str(folder / "zig"),
        ZIG_LOCAL_CACHE_DIR=str(folder / "zig"),
        MYPYC_DEBUG_LEVEL="0",
    )
    _put(folder, made_of)


def _bring(folder: Path) -> None:
    if find_spec("pip") is None:
        raise Failure("there is no C compiler: install gcc or clang")
    sys.stderr.write("no C compiler here: one is brought for the while (100 MB)\n")
    install = ("pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")
    _run(
        "there is no C compiler, and none can be brought; install gcc or clang",
        *(*install, "--target", str(folder), "--require-hashes", "-r", str(BROUGHT)),
        cwd=compiled.PACKAGES,
    )


def _run(refusal: str, *module: str, cwd: Path, **environment: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Failure(f"{refusal}:", *ended.stdout.strip().splitlines()[-20:])


def _put(folder: Path, made_of: str) -> None:
    """Made beside what is there and then put in its place: no process finds half of it."""
    new, old = (compiled.FOLDER.with_name(f".compiled.{which}") for which in ("new", "old"))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    for file in folder.rglob(f"*{compiled.SUFFIX}"):
        place = file.relative_to(folder)
        if place.parts[0] in compiled.OF or len(place.parts) == 1:
            (new / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, new / place)
    (new / compiled.MADE_OF).write_text(made_of)
    if compiled.FOLDER.exists():
        compiled.FOLDER.rename(old)
    new.rename(compiled.FOLDER)
    shutil.rmtree(old, ignore_errors=True)
