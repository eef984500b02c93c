"""The terminal: one console, progress, numbers as people write them."""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
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
from rich.segment import Segment
from rich.table import Table

from hundredfold.support.text import printable, printable_lines

NARROWEST = 20
"""Columns: fewer are taken for a mistake."""


class _Console(Console):
    """A console that obeys no text, and leaves it to the command line what a closed pipe means."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            highlight=False, soft_wrap=True, emoji=False, _environ=_environment(), **options
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render, whatever it comes from, without characters that a terminal obeys."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable_lines(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """Raise what Rich would turn into exit code 1."""
        raise BrokenPipeError


def _environment() -> dict[str, str]:
    """Return the environment without the size of a terminal that nothing could be read in."""
    sizes = {"COLUMNS": NARROWEST, "LINES": 2}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in sizes or (re.fullmatch("[0-9]{1,4}", value) and int(value) >= sizes[name])
    }


console = _Console()
error_console = _Console(stderr=True)


def escape(text: str) -> str:
    """Return text as a console shows just this in one line: no markup, no control characters."""
    return markup.escape(printable(text))


def whole(table: Table) -> Table:
    """Return a table as wide as it needs to be: a number that is cut short is of no use."""
    unbound = console.options.update(max_width=10_000)
    table.width = Measurement.get(console, unbound, table).maximum
    return table


def say(text: str) -> None:
    """Print a sentence for the user."""
    console.print(escape(text))


def print_json(value: Any) -> None:
    """Write a value to the standard output as JSON that does nothing to a terminal either."""
    print(printable_lines(json.dumps(value, indent=2, ensure_ascii=False)))


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
    name = TextColumn("{task.description}", markup=False)
    shown = (name, BarColumn(), *columns, TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*shown, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(printable(what), total=total, completed=done)
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
