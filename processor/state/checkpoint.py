"""The checkpoint of a partition's local copy. `LocalCheckpoint` is stored in the copy and decides.
A small file in the copy's folder says how far the copy is, too. The group reads that number, so
that a lane goes to the worker that has it on disk; RocksDB would have to be opened for it, which
replays its log.

The file moves with the copy and is lost with it. It is only a preference: a take-over finds out
what the copy is worth. So nothing depends on the file being right, and its errors stop nothing.
"""

import shutil
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

log = structlog.get_logger(__name__)

# RocksDB has no name like these.
NAME, UNFINISHED = "reached", "reached.unfinished"
# So that the sum of all partitions is a number for everybody who reads it.
MOST = 2**50

_decode = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MOST)]).decode


class LocalCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """What only this copy knows: how far it has the changelog, and how to tell whose copy it is."""

    changelog_next_offset: int = 0
    # When the last changelog record that is in here was written, by its own timestamp.
    changelog_time_ms: int = 0
    # A journal record that this copy has seen, and its hash; none if it was only restored.
    journal_offset: int = -1
    journal_hash: str = ""
    # The incarnation of the changelog that `changelog_next_offset` belongs to.
    incarnation: bytes = b""


def _aside(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.discarded")


def set_aside(copy: Path) -> None:
    """Takes a copy out of its place in one step, its note with it. Half of a copy could be refused
    forever, so `delete_aside` deletes it elsewhere, and also what kill -9 left there."""
    delete_aside(copy)
    if copy.exists():
        copy.rename(_aside(copy))


def delete_aside(copy: Path) -> None:
    if _aside(copy).exists():
        shutil.rmtree(_aside(copy))


def note(copy: Path, next_offset: int) -> None:
    try:
        (copy / UNFINISHED).write_bytes(b"%d\n" % next_offset)
        (copy / UNFINISHED).replace(copy / NAME)
    except OSError as error:
        log.warning("checkpoint file not written", copy=copy.name, reason=str(error))


def forget(copy: Path) -> None:
    """Gives up the claim: another worker, which has no such copy, gets the lane."""
    try:
        (copy / NAME).unlink(missing_ok=True)
    except OSError as error:
        log.warning("checkpoint file not removed", copy=copy.name, reason=str(error))


def noted(copy: Path) -> int:
    """0 if nothing is noted: there is no copy, or it was never whole."""
    try:
        next_offset: int = _decode((copy / NAME).read_bytes())
    except FileNotFoundError:
        return 0
    except (OSError, msgspec.DecodeError) as error:
        log.warning("checkpoint file not read", copy=copy.name, reason=str(error))
        return 0
    return next_offset
