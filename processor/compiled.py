"""How the modules that decide are run: as machine code, where `streamledger compile` has made it of
exactly the sources that lie here, and else from these sources, as ever. The code is the same.

All of them or none, and chosen before any is imported. It compiles nothing.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGES = Path(__file__).parents[1]
# Whose sources the machine code has something of.
OF = ("processor", "schemas", "plumbing")
# Has a folder for what was made, named after the sources; each comes whole, by one rename.
FOLDER = Path(__file__).with_name(".compiled")
# Of this Python's version and this kind of machine alone.
SUFFIX = EXTENSION_SUFFIXES[0]
SWITCH = "STREAMLEDGER_INTERPRETED"

# What became of it, in words.
how = "interpreted: nothing was chosen"


def prefer() -> None:
    """The machine code, if there is some that may be used."""
    global how
    if (found := to_run()) is not None:
        use(found)
        how = "compiled"
    elif os.environ.get(SWITCH) == "1":
        how = f"interpreted, as {SWITCH} asks for"
    elif any(FOLDER.glob("[0-9a-f]*")):
        how = "interpreted: what was compiled is of other sources or another Python, or unreadable"
    else:
        how = "interpreted: nothing was compiled"


def to_run() -> Path | None:
    """The machine code that a processor with this environment would run."""
    return None if os.environ.get(SWITCH) == "1" else made()


def made() -> Path | None:
    """Where the machine code of these sources lies."""
    folder = FOLDER / name_of(PACKAGES)
    return folder if os.access(folder / "processor" / f"writer{SUFFIX}", os.R_OK) else None


def use(folder: Path) -> None:
    files = {
        file.relative_to(folder).as_posix().removesuffix(SUFFIX).replace("/", "."): file
        for file in folder.rglob(f"*{SUFFIX}")
    }
    early = sorted(files.keys() & sys.modules.keys())
    assert not early, f"imported before it was known how: {early}"
    sys.meta_path.insert(0, _Finder(files))


def name_of(packages: Path) -> str:
    """Of all sources together, and of the Python that they are compiled for."""
    hash = hashlib.sha256(f"{SUFFIX} {sys.version}".encode())
    for source in sorted(path for name in OF for path in _sources(packages / name)):
        text = source.read_bytes()
        hash.update(f"\n{source.relative_to(packages)} {len(text)}\n".encode())
        hash.update(text)
    return hash.hexdigest()[:32]


def _sources(package: Path) -> Iterator[Path]:
    """What is hidden, as what others compile right now, is none."""
    for folder, folders, files in os.walk(package):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        yield from (Path(folder, name) for name in files if re.fullmatch(r"[^.].*\.py", name))


class _Finder(MetaPathFinder):
    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)
