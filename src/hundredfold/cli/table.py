"""Tables of text."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from hundredfold.support.console import console, escape, whole


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print rows under a head, `left` columns flush left and the others right.

    Lines are as long as they need to be: a run's name cut into pieces is of no use.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, heading in enumerate(head):
        lines = map(escape, heading.splitlines())
        table.add_column("\n".join(lines), justify="left" if index < left else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(whole(table))
