"""The terminal: one console, progress, numbers as people write them."""

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class _Console(Console):
    """A console that leaves it to the command line what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        """Raise what Rich would turn into exit code 1."""
        raise BrokenPipeError


console = _Console(highlight=False, soft_wrap=True)
error_console = _Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def byte_progress(name: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Show a download's progress in a terminal; yield what takes the bytes of each piece."""
    columns = (DownloadColumn(), TransferSpeedColumn())
    with _progress(name.rsplit("/", 1)[-1], columns, total or None, done) as advance:
        yield advance


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` things are done in a terminal; yield what takes how many more."""
    with _progress(what, (MofNCompleteColumn(),), total) as advance:
        yield advance


@contextmanager
def _progress(
    what: str, columns: Sequence[ProgressColumn], total: int | None, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a bar with these columns and the time left in a terminal; yield what takes progress."""
    shown = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*shown, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


def duration(seconds: float) -> str:
    """Return a time as people say it: 8.4 s, 3 min 20 s, 5 h 54 min."""
    if seconds < 60 or not math.isfinite(seconds):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def command() -> str:
    """Return how to call this program from the user's shell."""
    if shutil.which("hundredfold"):
        return "hundredfold"
    script = Path(sys.executable).parent / "hundredfold"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)
