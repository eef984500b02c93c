"""The page of a report: what it shows, filled into its template."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup
from torch import Tensor

from hundredfold.data.dataset import Split
from hundredfold.evaluation.predictions import ScoredPredictions
from hundredfold.figures.style import INK
from hundredfold.metrics.calibration import FEW_PICTURES
from hundredfold.metrics.confusion import confused_pairs, share_within_superclass
from hundredfold.metrics.scores import METRICS, learned_top1, metric_name
from hundredfold.pictures.prepare import data_uri
from hundredfold.report.figures import Drawn
from hundredfold.runs.run import Run
from hundredfold.support.console import duration
from hundredfold.support.html import render_page
from hundredfold.support.text import plural

PAIRS, EXAMPLES, SHOWN = 10, 4, 24
"""Pairs of confused classes, pictures of each, and pictures in each of the other galleries."""


@dataclass(frozen=True)
class Shot:
    """A test picture with what the page says of it."""

    name: str
    """Its path, or its number in the test split, as `hundredfold predict --test` takes it."""
    source: str
    """The picture as a data address, or empty where the data could not be had."""
    label: str
    predicted: str
    confidence: float


def render(
    run: Run,
    levels: Sequence[ScoredPredictions],
    drawn: Mapping[str, Drawn],
    test: Split | None,
    missing: str,
) -> str:
    """Return the page, whole in itself.

    Args:
        run: a finished run.
        levels: of its labels, what it learned first.
        drawn: every figure.
        test: the test pictures, or None where they could not be had.
        missing: why not.
    """
    first, config = levels[0], run.config()
    return render_page(
        "hundredfold.report",
        name=config.name,
        about=_about(run, first),
        tiles=_tiles(run.metrics()),
        figures={name: _inline(figure.svg) for name, figure in drawn.items()},
        levels=levels,
        rows=[(level, _rows(level, levels)) for level in levels],
        inside=share_within_superclass(first.labels, first.predicted, first.parents)
        if first.parents
        else None,
        pairs=_pairs(first, test),
        galleries=_galleries(first, test),
        missing=missing,
        calibration=_calibration(run),
        tables=_tables(run),
        percent=percent,
    )


def _calibration(run: Run) -> str:
    """Return where the temperature is from, in sentences."""
    pictures = run.metrics().get("calibration_pictures", 0)
    if not pictures:
        return "Without validation pictures no temperature could be fitted."
    few = "" if pictures >= FEW_PICTURES else " These are few, so the temperature is kept near 1."
    return (
        f"Logits are divided by {run.info().temperature:.3g}, a temperature fitted on "
        f"{plural(pictures, 'validation picture')}.{few}"
    )


def percent(share: float, digits: int = 1) -> str:
    """Return a share of 0..1 as a text that no line break divides."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _inline(svg: str) -> Markup:
    """Return an SVG element that takes the page's text colour."""
    return Markup(svg.replace(INK, "currentColor"))  # noqa: S704  # made by matplotlib, escaped there


def _about(run: Run, level: ScoredPredictions) -> str:
    config, started = run.config(), run.environment()["started"]
    return " · ".join(
        [
            config.data,
            plural(len(level.classes), f"{level.name} class"),
            f"{config.model}, {plural(config.epochs, 'epoch')}, seed {config.seed}",
            f"{started[:10]}",
        ]
    )


def _tiles(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the headline figures: value and name."""
    test, flip = metrics["test"], metrics["test_flip"]
    shown = (key for key in METRICS if "_top" in key and key in test)
    tiles = [(percent(test[key]), metric_name(key)) for key in shown]
    learned = learned_top1(test)
    tiles.append((percent(flip[learned]), metric_name(f"flip_{learned}")))
    tiles.append((percent(test["ece"]), metric_name("ece")))
    tiles.append((duration(metrics["seconds"]), "from first weights to these figures"))
    return tiles


def _rows(level: ScoredPredictions, levels: Sequence[ScoredPredictions]) -> list[dict[str, Any]]:
    """Return a row a class: its scores, and what it is most often taken for."""
    mistakes = level.confusion.clone().fill_diagonal_(0)
    above = levels[-1].classes
    rows = []
    for i, (name, score) in enumerate(zip(level.classes, level.scores, strict=True)):
        other = int(mistakes[i].argmax())
        times = int(mistakes[i, other])
        rows.append(
            {
                "name": name,
                "parent": above[level.parents[i]] if level.parents else "",
                "score": score,
                "taken_for": level.classes[other] if times else "",
                "times": times,
            }
        )
    return sorted(rows, key=lambda row: (row["score"].f1 is None, row["score"].f1 or 0.0))


def _pairs(level: ScoredPredictions, test: Split | None) -> list[dict[str, Any]]:
    """Return the most confused pairs, each with its surest mistakes."""
    found = []
    for pair in confused_pairs(level.confusion, PAIRS):
        first, second = pair.first, pair.second
        there = (level.labels == first) & (level.predicted == second)
        back = (level.labels == second) & (level.predicted == first)
        examples = _surest(level, there | back)[:EXAMPLES]
        found.append(
            {
                "first": level.classes[first],
                "second": level.classes[second],
                "pair": pair,
                "shots": [_shot(level, i, test) for i in examples.tolist()],
            }
        )
    return found


def _galleries(level: ScoredPredictions, test: Split | None) -> list[tuple[str, str, list[Shot]]]:
    """Return galleries: heading, what it shows, pictures."""
    wrong = _surest(level, ~level.correct)[:SHOWN]
    unsure = _surest(level, level.correct).flip(0)[:SHOWN]
    return [
        (
            "Surest mistakes",
            "Wrong with the most confidence: look for wrong labels, and for what misleads.",
            [_shot(level, i, test) for i in wrong.tolist()],
        ),
        (
            "Least certain right answers",
            "Right, but only just.",
            [_shot(level, i, test) for i in unsure.tolist()],
        ),
    ]


def _surest(level: ScoredPredictions, which: Tensor) -> Tensor:
    """Return the (M,) numbers of the pictures that `which`, (N,) bool, names, the surest first."""
    chosen = which.nonzero()[:, 0]
    return chosen[level.confidence[chosen].argsort(descending=True, stable=True)]


def _shot(level: ScoredPredictions, index: int, test: Split | None) -> Shot:
    return Shot(
        test.names[index] if test and test.names else f"no. {index}",
        data_uri(test[index : index + 1].store[0]) if test else "",
        level.classes[int(level.labels[index])],
        level.classes[int(level.predicted[index])],
        float(level.confidence[index]),
    )


def _tables(run: Run) -> dict[str, list[tuple[str, str]]]:
    """Return what the run was, as tables of names and values."""
    metrics = run.metrics()
    parts = {
        "training": metrics["train_seconds"],
        "validation": metrics["validation_seconds"],
        "test, two views": metrics["test_seconds"],
    }
    parts["everything else"] = max(0.0, metrics["seconds"] - sum(parts.values()))
    total = max(metrics["seconds"], 1e-9)
    times = [(name, f"{duration(s)} ({s / total:.0%})") for name, s in parts.items()]
    rate = ("training pictures a second", f"{metrics['images_per_second']:,.0f}")
    return {
        "Time": [*times, rate],
        "Configuration": [(name, _text(value)) for name, value in asdict(run.config()).items()],
        "Environment": [(name, _text(value)) for name, value in run.environment().items()],
    }


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in ("", None) else str(value)
