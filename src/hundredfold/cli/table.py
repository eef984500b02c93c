"""Print a table of texts."""

from collections.abc import Collection, Iterable, Sequence

from hundredfold.support.console import console, make_table


def show_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[int] = (0,),
    title: str = "",
) -> None:
    """Print a table; the arguments are those of `make_table`."""
    console.print(make_table(head, rows, left, title))
