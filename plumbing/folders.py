"""Folders that nobody but their owner may enter: balances, logs and secrets lie in them."""

import os
from pathlib import Path
from typing import Final

MODE: Final = 0o700


def make_private(path: Path) -> None:
    """Makes the folder, and those above it that are missing. One that is there is closed if it is
    this user's: a volume that is mounted may be another's. Raises an OSError."""
    if not path.parent.exists():
        make_private(path.parent)
    path.mkdir(mode=MODE, exist_ok=True)
    if path.stat().st_uid == os.geteuid():
        path.chmod(MODE)
