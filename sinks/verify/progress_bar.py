"""A progress bar on standard error where that is a terminal; no output otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ReportProgress = Callable[[int, int], None]


@contextmanager
def progress_bar(title: str) -> Iterator[ReportProgress]:
    """Yields a function that takes the records done and their total."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def partitions_progress_bar(title: str) -> Iterator[Callable[[int, int, int], None]]:
    """Yields a function that takes a partition, and the records done and their total in it."""
    ends: dict[int, tuple[int, int]] = {}
    with progress_bar(title) as report_progress:

        def report_partition(partition: int, done: int, total: int) -> None:
            ends[partition] = done, total
            report_progress(
                sum(each for each, _ in ends.values()), sum(each for _, each in ends.values())
            )

        yield report_partition
