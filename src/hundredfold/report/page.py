"""Render the page of a report from its template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from markupsafe import Markup
from torch import Tensor

from hundredfold.data.addresses import without_key
from hundredfold.data.dataset import Split
from hundredfold.evaluation.predictions import ScoredPredictions
from hundredfold.figures.style import INK
from hundredfold.inference.known import FOREIGN
from hundredfold.metrics.calibration import FEW_PICTURES
from hundredfold.metrics.confusion import ClassScore, confused_pairs, share_within_superclass
from hundredfold.metrics.intervals import is_accuracy, wilson_interval
from hundredfold.metrics.scores import (
    INTERVAL,
    METRICS,
    describe_cross_validation,
    describe_test,
    format_interval,
    format_probability,
    learned_top1,
    metric_name,
)
from hundredfold.pictures.load import data_uri
from hundredfold.report.figures import RenderedFigure
from hundredfold.runs.run import Run
from hundredfold.support.console import duration
from hundredfold.support.html import render_page
from hundredfold.support.text import plural

MAX_PAIRS, MAX_EXAMPLES, MAX_GALLERY = 10, 4, 24
"""Number of confused pairs, of pictures for each pair, and of pictures in each gallery."""


@dataclass(frozen=True)
class ReportPicture:
    """A test picture and its prediction, as shown on the page."""

    name: str
    """Its path, or its number in the test split, as `hundredfold predict --test` takes it."""
    source: str
    """The picture as a data URI; empty if the data is not available."""
    label: str
    predicted: str
    confidence: float


class Tile(NamedTuple):
    """A headline figure, as shown on the page."""

    value: str
    name: str
    interval: str = ""
    """The interval of an accuracy; empty for other figures."""


def render_report(
    run: Run,
    levels: Sequence[ScoredPredictions],
    figures: Mapping[str, RenderedFigure],
    test: Split | None,
    missing: str,
) -> str:
    """Return the self-contained HTML page.

    Args:
        run: a finished run.
        levels: its predictions at each level of the labels, as returned by `scored_predictions`.
        figures: as returned by `draw_figures`.
        test: the test pictures, or None if they are not available.
        missing: why they are not available.
    """
    first, config = levels[0], run.config()
    return render_page(
        "hundredfold.report",
        "page.html",
        name=config.name,
        about=_about(run, first),
        tiles=_tiles(run.metrics()),
        interval=INTERVAL,
        intervals=describe_test(run.metrics()["test_pictures"], config.weights),
        cross_validation=describe_cross_validation(run.metrics()),
        figures={name: _inline(figure.svg) for name, figure in figures.items()},
        levels=levels,
        rows=[(level, _rows(level, levels)) for level in levels],
        inside=share_within_superclass(first.labels, first.predicted, first.parents)
        if first.parents
        else None,
        pairs=_pairs(first, test),
        galleries=_galleries(first, test) + _foreign_gallery(run, first, test),
        missing=re.sub(r"\w+://\S+", lambda address: without_key(address[0]), missing),
        head=_head(run),
        calibration=_calibration(run),
        tables=_tables(run),
        percent=percent,
    )


def _calibration(run: Run) -> str:
    """Return sentences that say how the temperature was fitted."""
    pictures = run.metrics().get("calibration_pictures", 0)
    if not pictures:
        return "There were no validation pictures, so the probabilities are not calibrated."
    few = "" if pictures >= FEW_PICTURES else " As these are few, the temperature is kept near 1."
    return (
        f"Logits are divided by {run.info().temperature:.3g}, a temperature fitted on "
        f"{plural(pictures, 'validation picture')}.{few}"
    )


def _head(run: Run) -> str:
    """Return sentences about the head of a pretrained model; empty for another model."""
    head = run.metrics().get("head")
    if not head:
        return ""
    text = (
        "Training began with a linear head on the pretrained features of "
        f"{plural(head['pictures'], 'picture')}, which took {duration(head['seconds'])}."
    )
    if not head["validation"]:
        return text
    key = learned_top1(head["validation"])
    share = percent(head["validation"][key])
    interpolation = run.metrics().get("interpolation")
    if head.get("refitted"):
        rejected = (
            " Fine-tuning then raised the loss on these pictures, so it was discarded."
            if interpolation
            else ""
        )
        return (
            f"{text} Before it was fitted to the validation pictures as well, it classified "
            f"{share} of them correctly.{rejected}"
        )
    text = f"{text} It classified {share} of the validation pictures correctly."
    if not interpolation:
        return text
    share, correct = interpolation["share"], percent(interpolation["validation"][key])
    return (
        f"{text} The final weights are an average of the weights after fine-tuning ({share:.0%}) "
        f"and before it ({1 - share:.0%}). They classify {correct} of these pictures correctly."
    )


def percent(share: float) -> str:
    """Return a share (0..1) as a percentage with a no-break space."""
    return format_probability(share).replace("%", "\N{NO-BREAK SPACE}%")


def _inline(svg: str) -> Markup:
    """Return an SVG element that is drawn in the page's text colour."""
    return Markup(svg.replace(INK, "currentColor"))  # noqa: S704  # matplotlib escapes its texts


def _about(run: Run, level: ScoredPredictions) -> str:
    config, started = run.config(), run.environment()["started"]
    return " · ".join(
        [
            without_key(config.data),
            plural(len(level.classes), f"{level.name} class"),
            f"{config.model}, {plural(config.epochs, 'epoch')}, seed {config.seed}",
            f"{started[:10]}",
        ]
    )


def _tiles(metrics: dict[str, Any]) -> list[Tile]:
    """Return the headline figures."""
    test, flip, count = metrics["test"], metrics["test_flip"], metrics["test_pictures"]
    accuracies = {key: test[key] for key in METRICS if is_accuracy(key) and key in test}
    learned = learned_top1(test)
    accuracies[f"flip_{learned}"] = flip[learned]
    return [
        *(
            Tile(percent(share), metric_name(key), format_interval(share, count))
            for key, share in accuracies.items()
        ),
        Tile(percent(test["ece"]), metric_name("ece")),
        Tile(duration(metrics["seconds"]), "total time of the run"),
    ]


def _rows(level: ScoredPredictions, levels: Sequence[ScoredPredictions]) -> list[dict[str, Any]]:
    """Return a table row for each class, lowest F1 first: its scores and most common mistake."""
    mistakes = level.confusion.clone().fill_diagonal_(0)
    superclasses = levels[-1].classes
    rows = []
    for i, (name, score) in enumerate(zip(level.classes, level.scores, strict=True)):
        other = int(mistakes[i].argmax())
        times = int(mistakes[i, other])
        rows.append(
            {
                "name": name,
                "parent": superclasses[level.parents[i]] if level.parents else "",
                "score": score,
                "interval": _recall_interval(score),
                "mistaken_for": level.classes[other] if times else "",
                "times": times,
            }
        )
    return sorted(rows, key=lambda row: (row["score"].f1 is None, row["score"].f1 or 0.0))


def _recall_interval(score: ClassScore) -> tuple[float, str] | None:
    """Return the interval of a recall: its lower limit and its text; None without test pictures."""
    if score.recall is None:
        return None
    low, _ = wilson_interval(score.recall, score.support)
    return low, format_interval(score.recall, score.support)


def _pairs(level: ScoredPredictions, test: Split | None) -> list[dict[str, Any]]:
    """Return the most confused pairs, each with its most confident mistakes."""
    pairs = []
    for pair in confused_pairs(level.confusion, MAX_PAIRS):
        first, second = pair.first, pair.second
        first_as_second = (level.labels == first) & (level.predicted == second)
        second_as_first = (level.labels == second) & (level.predicted == first)
        examples = _most_confident(level, first_as_second | second_as_first)[:MAX_EXAMPLES]
        pairs.append(
            {
                "first": level.classes[first],
                "second": level.classes[second],
                "pair": pair,
                "pictures": [_picture(level, i, test) for i in examples.tolist()],
            }
        )
    return pairs


def _galleries(
    level: ScoredPredictions, test: Split | None
) -> list[tuple[str, str, list[ReportPicture]]]:
    """Return the galleries: heading, explanation, pictures."""
    wrong = _most_confident(level, ~level.correct)[:MAX_GALLERY]
    unsure = _most_confident(level, level.correct).flip(0)[:MAX_GALLERY]
    return [
        (
            "Most confident mistakes",
            "Wrong predictions with the highest probability. Look for wrong labels, and for what "
            "misleads the model.",
            [_picture(level, i, test) for i in wrong.tolist()],
        ),
        (
            "Least confident correct predictions",
            "Correct predictions with the lowest probability.",
            [_picture(level, i, test) for i in unsure.tolist()],
        ),
    ]


def _foreign_gallery(
    run: Run, level: ScoredPredictions, test: Split | None
) -> list[tuple[str, str, list[ReportPicture]]]:
    """Return the gallery of test pictures that count as showing none of the classes, if any do."""
    known = run.test_known()
    if known is None:
        return []
    foreign = (known < FOREIGN).nonzero()[:, 0]
    closest = foreign[known[foreign].argsort(descending=True, stable=True)][:MAX_GALLERY]
    return [
        (
            "Just rejected",
            f"{plural(len(foreign), 'test picture')} of {len(known):,} "
            f"({percent(len(foreign) / len(known))}) would be rejected: the model would answer "
            "'none of these', because the features or the logits are unlike those of the training "
            f"pictures. By design, about {FOREIGN:.0%} of all pictures that resemble the training "
            "pictures are rejected. The pictures closest to the limit come first.",
            [_picture(level, i, test) for i in closest.tolist()],
        )
    ]


def _most_confident(level: ScoredPredictions, which: Tensor) -> Tensor:
    """Return the indices (M,) of the pictures that are true in `which` (N,), by confidence."""
    chosen = which.nonzero()[:, 0]
    return chosen[level.confidence[chosen].argsort(descending=True, stable=True)]


def _picture(level: ScoredPredictions, index: int, test: Split | None) -> ReportPicture:
    return ReportPicture(
        test.names[index] if test and test.names else f"no. {index}",
        data_uri(test[index : index + 1].images[0]) if test else "",
        level.classes[int(level.labels[index])],
        level.classes[int(level.predicted[index])],
        float(level.confidence[index]),
    )


def _tables(run: Run) -> dict[str, list[tuple[str, str]]]:
    """Return time, configuration and environment of the run as tables of names and values."""
    metrics, config = run.metrics(), asdict(run.config())
    config["data"] = without_key(config["data"])
    seconds = {
        "features and head": (metrics.get("head") or {}).get("seconds", 0.0),
        "training": metrics["train_seconds"],
        "validation": metrics["validation_seconds"],
        "test, two views": metrics["test_seconds"],
    }
    seconds["everything else"] = max(0.0, metrics["seconds"] - sum(seconds.values()))
    total = max(metrics["seconds"], 1e-9)
    times = [(name, f"{duration(s)} ({s / total:.0%})") for name, s in seconds.items()]
    rate = ("training pictures per second", f"{metrics['images_per_second']:,.0f}")
    return {
        "Time": [*times, rate],
        "Configuration": [(name, _text(value)) for name, value in config.items()],
        "Environment": [(name, _text(value)) for name, value in run.environment().items()],
    }


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in ("", None) else str(value)
