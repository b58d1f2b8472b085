"""What a person sees while the system starts, runs and stops.

Rule: a terminal that went away never stops the stopping. It must not know how anything works.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

COLORS = {"ready": "green", "yours": "green", "starting": "yellow", "restarting": "yellow"}
MB = 1_000_000


@dataclass(frozen=True)
class Row:
    """One line of the table of parts."""

    name: str
    address: str
    state: str
    log: str


class Display:
    """Lines and progress on one console; may be called from several threads."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._guard = threading.Lock()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._download = Download(self, self._progress)

    def say(self, line: str, style: str = "") -> None:
        with self._guard, suppress(OSError):
            self._console.print(escape(line), style=style or None, soft_wrap=True)

    def table(self, rows: Sequence[Row]) -> None:
        with self._guard, suppress(OSError):
            self._console.print(table(rows))

    @contextmanager
    def progress(self) -> Iterator["Download"]:
        """While something is being started; yields what downloads report to."""
        with suppress(OSError):
            self._progress.start()
        try:
            yield self._download
        finally:
            with suppress(OSError):
                self._progress.stop()

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """One thing among those; says how long it took when it is done."""
        began = monotonic()
        task = self._progress.add_task(doing, total=None)
        try:
            yield
        finally:
            self._progress.remove_task(task)
        self.say(f"  {doing:<28}{monotonic() - began:6.1f} s")


class Download:
    """All downloads as one bar, and where nobody watches as two lines."""

    def __init__(self, display: Display, progress: Progress) -> None:
        self._display = display
        self._progress = progress
        self._task = progress.add_task("downloading", visible=False)
        self._guard = threading.Lock()
        self._done = 0
        self._total = 0

    def expect(self, size: int) -> None:
        with self._guard:
            self._total += size
        self._display.say(f"  downloading {size / MB:.0f} MB, the first time only")
        self._progress.update(self._task, total=self._total, visible=True)

    def advance(self, size: int) -> None:
        with self._guard:
            self._done += size
            done = self._done
        shown = f"downloaded {done / MB:.0f} of {self._total / MB:.0f} MB"
        visible = done < self._total
        self._progress.update(self._task, completed=done, description=shown, visible=visible)


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("what", "address", "state", "log"):
        made.add_column(heading, overflow="fold")
    for row in rows:
        state = f"[{COLORS.get(row.state, 'red')}]{row.state}[/]"
        made.add_row(row.name, escape(row.address), state, escape(short(row.log)))
    return made


def short(path: str) -> str:
    """The path as somebody would type it here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
