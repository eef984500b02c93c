"""The terminal: consoles that print any text safely, tables, progress bars, durations."""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box, markup
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
"""Smallest width of a terminal in columns; a smaller one is taken for a mistake."""


class _Console(Console):
    """A console that prints control characters as text, and raises BrokenPipeError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            highlight=False, soft_wrap=True, emoji=False, _environ=_environment(), **options
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render without control characters in any text."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable_lines(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; Rich would exit with code 1."""
        raise BrokenPipeError


def _environment() -> dict[str, str]:
    """Return the environment variables without an unusable terminal size."""
    sizes = {"COLUMNS": NARROWEST, "LINES": 2}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in sizes or (re.fullmatch("[0-9]{1,4}", value) and int(value) >= sizes[name])
    }


console = _Console()
error_console = _Console(stderr=True)


def escape(text: str) -> str:
    """Escape text so that a console prints exactly it, in one line: no markup, no control codes."""
    return markup.escape(printable(text))


def _at_full_width(table: Table) -> Table:
    """Return a table at its full width, which cuts no text."""
    unbound = console.options.update(max_width=10_000)
    table.width = Measurement.get(console, unbound, table).maximum
    return table


def make_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[int] = (0,),
    title: str = "",
) -> Table:
    """Return a table of texts at its full width.

    Args:
        head: the headings; a heading may have several lines.
        rows: the cells, each in one line.
        left: indices of the columns that are flush left; the others are flush right.
        title: a line above the table; empty for none.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=escape(title) or None,
        title_justify="left",
    )
    for index, heading in enumerate(head):
        lines = map(escape, heading.splitlines())
        table.add_column("\n".join(lines), justify="left" if index in left else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    return _at_full_width(table)


def say(text: str) -> None:
    """Print a sentence."""
    console.print(escape(text))


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output, without control characters."""
    print(printable_lines(json.dumps(value, indent=2, ensure_ascii=False)))


@contextmanager
def byte_progress(name: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download in a terminal.

    Args:
        name: the file, as an address.
        total: its size in bytes; 0 if unknown.
        done: number of bytes that are there already.

    Yields:
        A function to call with the number of further bytes.
    """
    columns = (DownloadColumn(), TransferSpeedColumn())
    with _progress(name.rsplit("/", 1)[-1], columns, total or None, done) as advance:
        yield advance


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a count in a terminal.

    Args:
        what: what is counted.
        total: number of things in total.

    Yields:
        A function to call with the number of further things.
    """
    with _progress(what, (MofNCompleteColumn(),), total) as advance:
        yield advance


@contextmanager
def _progress(
    what: str, columns: Sequence[ProgressColumn], total: int | None, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a bar, these columns and the time left; yield a function that adds to the progress."""
    name = TextColumn("{task.description}", markup=False)
    shown = (name, BarColumn(), *columns, TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*shown, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(printable(what), total=total, completed=done)
        yield lambda count: progress.advance(task, count)


def duration(seconds: float) -> str:
    """Return a duration as text: 8.4 s, 3 min 20 s, 5 h 54 min."""
    if seconds < 60 or not math.isfinite(seconds):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def command() -> str:
    """Return the command that starts this program in the user's shell."""
    if shutil.which("hundredfold"):
        return "hundredfold"
    script = Path(sys.executable).parent / "hundredfold"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)
