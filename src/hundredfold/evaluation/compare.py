"""Runs side by side: what they reached, what sets them apart, whether that is more than chance."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hundredfold.evaluation.predictions import levels
from hundredfold.metrics.confusion import McNemar, mcnemar
from hundredfold.metrics.scores import top1_key
from hundredfold.runs.bundled import find_run
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.runs.table import final_scores
from hundredfold.support.errors import UserError

MACHINE = ("device", "processor", "threads", "torch")
"""What times depend on, as `environment.describe` calls it."""
LONGEST_NAME = 40
"""Letters of a group's name, from which on a number stands for what sets it apart."""


class Spread(NamedTuple):
    """A quantity over a group's seeds."""

    n: int
    mean: float
    std: float | None
    """Of the sample; None for a single seed."""


class Difference(NamedTuple):
    """The first group's mean accuracy less the second's."""

    mean: float
    """-1..1."""
    error: float
    """Standard error, each group with a variance of its own as in Welch's test."""


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ in nothing but their seed."""

    name: str
    settings: Mapping[str, str]
    """The configuration as text, but for the seed and the folder."""
    runs: tuple[Run, ...]
    """By seed; no seed comes twice."""

    @cached_property
    def scores(self) -> dict[str, list[float]]:
        """The values of all runs by each key of `final_scores`."""
        rows = [final_scores(run) for run in self.runs]
        return {key: [row[key] for row in rows] for key in rows[0]}

    @cached_property
    def correct(self) -> dict[str, Tensor]:
        """What `correct` returns of the first run, whose network stands for the group."""
        return correct(self.runs[0])

    @property
    def digest(self) -> str:
        """SHA-256 of the data."""
        return _digest(self.runs[0])


@dataclass(frozen=True)
class Contrast:
    """Two groups on the same test pictures, single view, at one level of the labels."""

    level: str
    """fine or coarse."""
    first: RunGroup
    second: RunGroup
    mcnemar: McNemar
    """Of each group's first network."""

    @property
    def difference(self) -> Difference | None:
        """Of the seeds' accuracies; None where either group has a single seed."""
        one, two = (
            spread(group.scores[top1_key(self.level)]) for group in (self.first, self.second)
        )
        if one.std is None or two.std is None:
            return None
        error = math.sqrt(one.std**2 / one.n + two.std**2 / two.n)
        return Difference(one.mean - two.mean, error)


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, in the order in which their first ones were named."""

    groups: tuple[RunGroup, ...]
    contrasts: tuple[Contrast, ...]
    """Of each pair of groups, as far as they can be compared."""
    notes: tuple[str, ...]
    """Sentences: what was left out or cannot be compared, and why."""

    @property
    def differences(self) -> dict[str, list[str]]:
        """What sets the configurations apart: field to each group's value."""
        settings = [group.settings for group in self.groups]
        return {field: [own[field] for own in settings] for field in _apart(settings)}

    @property
    def histories(self) -> dict[str, list[list[Epoch]]]:
        """Finished epochs of each run by group, whose name says where the test set judged them."""
        judged = [
            " (judged on test)" if group.settings["validate_on"] == "test" else ""
            for group in self.groups
        ]
        return {
            group.name + where: [run.nonempty_history() for run in group.runs]
            for group, where in zip(self.groups, judged, strict=True)
        }


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    """Compare finished runs from their directories alone; unfinished ones are left out.

    Args:
        runs: two or more, or their directories. Runs that differ in nothing but the seed become a
            group; a seed that comes again begins another.

    Raises:
        UserError: a directory is no run or a damaged one, or fewer than two are finished.
    """
    found = [find_run(run) for run in runs]
    found = list({run.path.resolve(): run for run in found}.values())
    unfinished = [run for run in found if _digest(run) and not run.finished]  # or it is no run
    finished = [run for run in found if run not in unfinished]
    if len(finished) < 2:
        left_out = f"; not finished: {', '.join(map(str, unfinished))}" if unfinished else ""
        raise UserError(f"Name two finished runs or more to compare{left_out}.")
    groups = _groups(finished)
    notes = [f"{run} is not finished and left out." for run in unfinished]
    notes += _obstacles(groups)
    contrasts = [each for pair in combinations(groups, 2) for each in _contrasts(*pair)]
    return Comparison(groups, tuple(contrasts), tuple(notes))


def spread(values: Sequence[float]) -> Spread:
    """Return number, mean and sample standard deviation of at least one value."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.mean(values), std)


def correct(run: Run) -> dict[str, Tensor]:
    """Return which test pictures a finished run got right, single view.

    Returns:
        (N,) bool by level: `fine` only where it learned them, `coarse` only with a hierarchy, by
        summed calibrated probabilities.

    Raises:
        UserError: the run is damaged.
    """
    return {level.name: level.correct for level in levels(run)}


def _groups(runs: Sequence[Run]) -> tuple[RunGroup, ...]:
    """RunGroup runs by all that decided them but for the seed; no seed comes twice in a group."""
    members: dict[tuple[Any, ...], list[Run]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        # The same pictures are the same data, wherever on the disk they were.
        same = tuple((_settings(run) | {"data": _digest(run)}).items())
        members.setdefault((*same, seen[(*same, run.config().seed)]), []).append(run)
        seen[(*same, run.config().seed)] += 1
    settings = [_settings(group[0]) for group in members.values()]
    return tuple(
        RunGroup(name, own, tuple(sorted(group, key=lambda run: run.config().seed)))
        for name, own, group in zip(_names(settings), settings, members.values(), strict=True)
    )


def _settings(run: Run) -> dict[str, str]:
    """Return what decided a run but for its seed, as text."""
    config = dataclasses.asdict(run.config())
    if config["budget"]:
        config["epochs"] = "by the clock"  # what was planned differs from one run to the next
    return {
        field: (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "empty"
        for field, value in config.items()
        if field not in ("seed", "out")
    }


def _digest(run: Run) -> str:
    if not (digest := run.environment().get("data_sha256")):
        raise UserError(f"{run} does not say which data it was trained on: it is damaged.")
    return str(digest)


def _names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each group: the recipe's, with what sets it apart from others of that name.

    Where that is too long, or nothing, they are numbered.
    """
    names, seen = [], Counter[str]()
    for own in settings:
        namesakes = [other for other in settings if other["name"] == own["name"]]
        apart = ", ".join(f"{field} {own[field]}" for field in _apart(namesakes))
        name = f"{own['name']} with {apart}" if apart else own["name"]
        name = name if len(name) <= LONGEST_NAME else own["name"]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _apart(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the fields that are not the same in all."""
    return [field for field in settings[0] if len({own[field] for own in settings}) > 1]


def _contrasts(first: RunGroup, second: RunGroup) -> Iterator[Contrast]:
    """Compare two groups at each level that both know."""
    if first.digest != second.digest:
        return
    for level, right in first.correct.items():
        if level in second.correct:
            yield Contrast(level, first, second, mcnemar(right, second.correct[level]))


def _obstacles(groups: Sequence[RunGroup]) -> Iterator[str]:
    """Say what cannot be compared, and why."""
    sources = [f"{g.settings['data']}, SHA-256 {g.digest[:8]}" for g in groups]
    if len({group.digest for group in groups}) > 1:
        yield f"Only groups on the same data are tested ({_listed(groups, sources)})."
    coarse = [group.name for group in groups if top1_key("fine") not in group.scores]
    if 0 < len(coarse) < len(groups):
        yield (
            f"{', '.join(coarse)}: trained on coarse labels, so tested on those only, and the "
            "calibration error is of those."
        )
    shown: list[list[str]] = []
    for field in MACHINE:
        of_runs = [{str(run.environment().get(field)) for run in group.runs} for group in groups]
        values = [" or ".join(sorted(found)) for found in of_runs]
        if len(set().union(*of_runs)) > 1 and values not in shown:
            yield f"Times are not comparable: `{field}` differs ({_listed(groups, values)})."
            shown.append(values)  # a CPU as the device is the processor again


def _listed(groups: Sequence[RunGroup], values: Sequence[str]) -> str:
    """Return each group's value."""
    pairs = zip(groups, values, strict=True)
    return "; ".join(f"{group.name}: {value}" for group, value in pairs)
