"""What the terminal is like: width, colour, and a progress bar for long runs."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

_DEFAULT_SIZE, _MIN_WIDTH = (80, 24), 40
_SHORT_RUN = 1.0
"""Seconds that pass before a progress bar appears."""
_NAME_WIDTH = 32
"""Columns that a progress bar gives to a name."""


def width() -> int:
    """Return the columns of standard output: COLUMNS, else the terminal's, else 80."""
    return max(shutil.get_terminal_size(_DEFAULT_SIZE).columns, _MIN_WIDTH)


def color() -> bool:
    """Return whether standard output shows colour: a terminal, and no NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(message: str) -> None:
    """Say something on standard error, in one line, whatever the names in it hold."""
    from normcheck.render.layout import printable

    sys.stderr.write(f"normcheck: {printable(' '.join(message.split()))}\n")


class Tick(Protocol):
    """What a run calls with the fraction done (0 to 1), and what it is at."""

    def __call__(self, done: float, at: str = "", /) -> None:
        """Show it; any thread may call."""


@contextmanager
def progress(doing: str, *, quiet: bool) -> Iterator[Tick | None]:
    """Yield what to call with the fraction done, to draw a bar on standard error if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(doing)
    try:
        yield bar.update
    finally:
        bar.close()


class _Bar:
    """A bar that appears once a run turns out to be long, and vanishes when it ends."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._start = time.monotonic()
        self._shown: Progress | None = None
        self._lock = threading.Lock()

    def update(self, done: float, at: str = "", /) -> None:
        """Show that the fraction `done` (0 to 1) is done, and what the run is at; any thread may call it."""
        with self._lock:
            if self._shown is None and time.monotonic() - self._start < _SHORT_RUN:
                return
            shown = self._shown or self._open()
            shown.update(shown.task_ids[0], completed=done, description=self._described(at))

    def _described(self, at: str) -> str:
        """Return what is done, and the end of the name of what it is at: there names differ."""
        from normcheck.render.layout import inline

        return f"{self._doing} {inline(at)[-_NAME_WIDTH:]}".rstrip()

    def close(self) -> None:
        with self._lock:
            if self._shown is not None:
                self._shown.stop()

    def _open(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._shown.add_task(self._doing, total=1.0)
        self._shown.start()
        return self._shown
