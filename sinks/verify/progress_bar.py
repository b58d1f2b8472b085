"""A bar on standard error, for those who wait at a terminal; nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ReportProgress = Callable[[int, int], None]


@contextmanager
def progress_bar(what: str) -> Iterator[ReportProgress]:
    """Gives what is to be told of done and total."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def partitions_progress_bar(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Gives what is to be told of a partition, and of done and total in it."""
    ends: dict[int, tuple[int, int]] = {}
    with progress_bar(what) as told:

        def one(partition: int, done: int, total: int) -> None:
            ends[partition] = done, total
            told(sum(each for each, _ in ends.values()), sum(each for _, each in ends.values()))

        yield one
