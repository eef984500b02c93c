"""`hundredfold compare`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from hundredfold.evaluation.compare import Comparison, Contrast, RunGroup, compare, spread
from hundredfold.figures.comparison import draw_comparison
from hundredfold.figures.style import to_png
from hundredfold.metrics.scores import format_metric, format_points, metric_name, top1_key
from hundredfold.runs.table import SCORES
from hundredfold.support.console import console, escape, make_table, print_json
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, save_file
from hundredfold.support.text import plural


@dataclass(frozen=True)
class CompareOptions:
    """Compare runs: results over seeds, differing settings, and tests of significance.

    Runs that differ only in the seed form a group.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ...")]
    """Two or more run directories."""
    out: Path = Path("compare.png")
    """The PNG file to draw the curves into."""
    format: Literal["table", "json"] = "table"
    """The output format; json has all digits."""


def main(arguments: Sequence[str]) -> None:
    """Compare runs."""
    options = tyro.cli(CompareOptions, prog="hundredfold compare", args=arguments)
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out is {str(options.out)!r}, but must end in .png.")
    found = compare(options.runs)
    drawn = _draw(found, expanded(options.out))
    if options.format == "json":
        result = _as_json(found) | {"figure": str(options.out) if drawn else None}
        print_json(result)
        return
    _show(found)
    if drawn:
        console.print(f"Figure  {escape(str(options.out))}")


def _draw(found: Comparison, path: Path) -> bool:
    """Draw the curves into a file if there are any; return whether there are."""
    if not (histories := found.histories()):
        return False
    labels = "fine" if all(top1_key("fine") in group.scores for group in found.groups) else "coarse"
    save_file(path, to_png(draw_comparison(histories, labels)))
    return True


def _show(found: Comparison) -> None:
    """Print the results, the differing settings, the tests, and notes on their limits."""
    names = [group.name for group in found.groups]
    rows = [["seeds", *(str(len(group.runs)) for group in found.groups)]]
    for key in SCORES:
        cells = [_cell(key, group) for group in found.groups]
        rows += [[metric_name(key), *cells]] if any(cells) else []
    console.print(make_table(["test set: mean ± standard deviation", *names], rows))
    if found.differences:
        console.print(
            make_table(["what differs", *names], ([f, *v] for f, v in found.differences.items()))
        )
    elif len(names) > 1:
        console.print("The configurations are the same.\n")
    for contrast in found.contrasts:
        for sentence in _in_words(contrast):
            console.print(escape(sentence))
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/]")


def _cell(key: str, group: RunGroup) -> str:
    """Return a group's score as text; empty if the group does not have it."""
    if key not in group.scores:
        return ""
    _, mean, std = spread(group.scores[key])
    return format_metric(key, mean) + (f" ± {format_metric(key, std)}" if std is not None else "")


def _in_words(contrast: Contrast) -> list[str]:
    """Return sentences: two networks compared by picture, then the means over the seeds."""
    level = contrast.level.capitalize()
    better, worse = _label(contrast.first), _label(contrast.second)
    wins, losses, p = contrast.mcnemar
    if wins < losses:
        better, worse, wins, losses = worse, better, losses, wins
    if not wins:
        said = f"{better} and {worse} get the same pictures right"
    elif wins == losses:
        said = f"{better} and {worse} are each right on {plural(wins, 'picture')} "
        said += "that the other gets wrong"
    else:
        said = f"{better} is right and {worse} is wrong on {plural(wins, 'picture')}; "
        said += f"{worse} is right and {better} is wrong on {losses:,}"
    sentences = [f"{level}: {said} (McNemar's test: {_p_value(p)})."]
    if contrast.difference is None:
        return sentences
    mean, error = contrast.difference
    groups = (contrast.first, contrast.second)[:: 1 if mean >= 0 else -1]
    return [
        *sentences,
        f"{level}: the mean of {groups[0].name} ({plural(len(groups[0].runs), 'seed')}) is "
        f"{format_points(abs(mean))} points above that of {groups[1].name} "
        f"({plural(len(groups[1].runs), 'seed')}); standard error {format_points(error)}.",
    ]


def _label(group: RunGroup) -> str:
    """Return the name of a group, with the seed that represents it if there are several."""
    seed = f" (seed {group.runs[0].config().seed})" if len(group.runs) > 1 else ""
    return group.name + seed


def _p_value(p: float) -> str:
    """Return a p-value as a decimal number with two significant digits."""
    if p < 1e-6:
        return "p < 0.000001"
    return f"p = {np.format_float_positional(p, precision=2, fractional=False, trim='-')}"


def _as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as values for JSON."""
    groups = [
        {
            "name": group.name,
            "runs": [str(run) for run in group.runs],
            "seeds": [run.config().seed for run in group.runs],
            "scores": {
                name: spread(values)._asdict() | {"values": values}
                for name, values in group.scores.items()
            },
        }
        for group in found.groups
    ]
    contrasts = [
        {
            "level": contrast.level,
            "first": contrast.first.name,
            "second": contrast.second.name,
            "mcnemar": contrast.mcnemar._asdict(),
            "difference": contrast.difference._asdict() if contrast.difference else None,
        }
        for contrast in found.contrasts
    ]
    return {
        "groups": groups,
        "differences": found.differences,
        "contrasts": contrasts,
        "notes": found.notes,
    }
