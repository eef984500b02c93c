"""Compare runs: their scores, their settings, and whether differences exceed chance."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hundredfold.data.addresses import without_key
from hundredfold.evaluation.predictions import scored_predictions
from hundredfold.metrics.confusion import McNemar, mcnemar
from hundredfold.metrics.scores import top1_key
from hundredfold.runs.bundled import find_run
from hundredfold.runs.epoch import Epoch
from hundredfold.runs.run import Run
from hundredfold.runs.table import final_scores
from hundredfold.support.errors import UserError

MACHINE = ("device", "processor", "threads", "convolutions", "torch")
"""Keys of `describe_environment` on which running times depend."""
LONGEST_NAME = 40
"""Characters of a group's name; a longer name is replaced by the recipe's name and a number."""


class Spread(NamedTuple):
    """A quantity over the seeds of a group."""

    n: int
    mean: float
    std: float | None
    """Sample standard deviation; None for a single seed."""


class Difference(NamedTuple):
    """Difference of the mean accuracies of two groups, the first minus the second."""

    mean: float
    """-1..1."""
    error: float
    """Standard error with unequal variances, as in Welch's test."""


@dataclass(frozen=True)
class RunGroup:
    """Finished runs that differ only in their seed."""

    name: str
    settings: Mapping[str, str]
    """The configuration as text, without the seed and the output folder."""
    runs: tuple[Run, ...]
    """Runs sorted by seed; every seed occurs once."""
    scores: Mapping[str, list[float]]
    """The values of all runs by each key of `final_scores`."""
    correct: Mapping[str, Tensor]
    """The result of `correct_predictions` for the first run, which represents the group."""
    digest: str
    """SHA-256 of the data."""


@dataclass(frozen=True)
class Contrast:
    """Two groups on the same test pictures, single view, on fine or on coarse labels."""

    level: str
    """fine or coarse."""
    first: RunGroup
    second: RunGroup
    mcnemar: McNemar
    """Test of the first run of each group against the other."""

    @property
    def difference(self) -> Difference | None:
        """Difference of the mean accuracies; None if either group has a single seed."""
        one, two = (
            spread(group.scores[top1_key(self.level)]) for group in (self.first, self.second)
        )
        if one.std is None or two.std is None:
            return None
        error = math.sqrt(one.std**2 / one.n + two.std**2 / two.n)
        return Difference(one.mean - two.mean, error)


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, ordered by the first run of each as given."""

    groups: tuple[RunGroup, ...]
    contrasts: tuple[Contrast, ...]
    """Contrasts of every pair of groups that can be compared."""
    notes: tuple[str, ...]
    """Sentences that say what was left out or cannot be compared, and why."""

    @property
    def differences(self) -> dict[str, list[str]]:
        """The fields of the configuration that differ, with the value of each group."""
        settings = [group.settings for group in self.groups]
        return {field: [group[field] for group in settings] for field in _differing(settings)}

    def histories(self) -> dict[str, list[list[Epoch]]]:
        """Return the epochs of each run, by the name of its group.

        The name says if the runs were validated on the test set. Groups of models of which only the
        head was trained have no epochs and are left out.

        Raises:
            UserError: a run is damaged.
        """
        suffixes = [
            " (validated on test)" if group.settings["validate_on"] == "test" else ""
            for group in self.groups
        ]
        return {
            group.name + suffix: [run.nonempty_history() for run in group.runs]
            for group, suffix in zip(self.groups, suffixes, strict=True)
            if group.runs[0].config().epochs
        }


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    """Compare finished runs from their directories alone; unfinished runs are left out.

    Args:
        runs: two or more runs, or their directories. Runs that differ only in the seed form a
            group. A run whose seed is already in the group starts another group.

    Raises:
        UserError: a directory is damaged or not a run, or fewer than two runs are finished.

    Examples:
        >>> other = train(quick(data="sample", epochs=0.2, seed=1, device="cpu"), quiet=True)
        >>> len(compare([run, other]).groups)  # runs that differ only in the seed form one group
        1
    """
    unique = {run.path.resolve(): run for run in map(find_run, runs)}.values()
    unfinished = [run for run in unique if _digest(run) and not run.finished]  # or it is no run
    finished = [run for run in unique if run not in unfinished]
    if len(finished) < 2:
        left_out = f"; unfinished: {', '.join(map(str, unfinished))}" if unfinished else ""
        raise UserError(f"Name two or more finished runs to compare{left_out}.")
    groups = _groups(finished)
    notes = [f"{run} is unfinished and was left out." for run in unfinished]
    notes += _limitations(groups)
    contrasts = [contrast for pair in combinations(groups, 2) for contrast in _contrasts(*pair)]
    return Comparison(groups, tuple(contrasts), tuple(notes))


def spread(values: Sequence[float]) -> Spread:
    """Return the number, the mean and the sample standard deviation of one or more values."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.mean(values), std)


def correct_predictions(run: Run) -> dict[str, Tensor]:
    """Return which test pictures a finished run predicted correctly, single view.

    Returns:
        (N,) bool for `fine` labels, if the run learned them, and for `coarse` labels, if it learned
        them or has a hierarchy; then by the summed calibrated probabilities.

    Raises:
        UserError: the run is damaged.
    """
    return {predictions.name: predictions.correct for predictions in scored_predictions(run)}


def _groups(runs: Sequence[Run]) -> tuple[RunGroup, ...]:
    """Group runs by all settings but the seed; a repeated seed starts another group."""
    members: dict[tuple[Any, ...], list[Run]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        # The same pictures are the same data, wherever they are stored.
        key = tuple((_settings(run) | {"data": _digest(run)}).items())
        members.setdefault((*key, seen[(*key, run.config().seed)]), []).append(run)
        seen[(*key, run.config().seed)] += 1
    settings = [_settings(group[0]) for group in members.values()]
    return tuple(map(_group, _names(settings), settings, members.values()))


def _group(name: str, settings: Mapping[str, str], members: Sequence[Run]) -> RunGroup:
    """Return a group with the scores and the predictions that its runs recorded."""
    runs = tuple(sorted(members, key=lambda run: run.config().seed))
    rows = [final_scores(run) for run in runs]
    scores = {key: [row[key] for row in rows] for key in rows[0]}
    return RunGroup(name, settings, runs, scores, correct_predictions(runs[0]), _digest(runs[0]))


def _settings(run: Run) -> dict[str, str]:
    """Return the settings of a run as text, without its seed."""
    config = dataclasses.asdict(run.config())
    config["data"] = without_key(config["data"])
    if config["budget"]:
        config["epochs"] = "by time budget"  # the planned number differs from run to run
    return {
        field: (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "empty"
        for field, value in config.items()
        if field not in ("seed", "out", "cache", "checkpoint")
    }


def _digest(run: Run) -> str:
    if not (digest := run.environment().get("data_sha256")):
        raise UserError(f"{run} does not say which data it was trained on: it is damaged.")
    return str(digest)


def _names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each group: its recipe, and the settings that differ within the recipe.

    Names that are too long or not unique are numbered.
    """
    names, seen = [], Counter[str]()
    for group in settings:
        same_recipe = [other for other in settings if other["name"] == group["name"]]
        details = ", ".join(f"{field} {group[field]}" for field in _differing(same_recipe))
        name = f"{group['name']} with {details}" if details else group["name"]
        name = name if len(name) <= LONGEST_NAME else group["name"]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the fields whose values differ between groups."""
    return [field for field in settings[0] if len({group[field] for group in settings}) > 1]


def _contrasts(first: RunGroup, second: RunGroup) -> Iterator[Contrast]:
    """Yield the contrasts of two groups, on fine and on coarse labels if both have them."""
    if first.digest != second.digest:
        return
    for level, correct in first.correct.items():
        if level in second.correct:
            yield Contrast(level, first, second, mcnemar(correct, second.correct[level]))


def _limitations(groups: Sequence[RunGroup]) -> Iterator[str]:
    """Yield sentences that say what cannot be compared, and why."""
    sources = [f"{g.settings['data']}, SHA-256 {g.digest[:8]}" for g in groups]
    if len({group.digest for group in groups}) > 1:
        yield f"Only groups with the same data are compared ({_listed(groups, sources)})."
    coarse = [group.name for group in groups if top1_key("fine") not in group.scores]
    if 0 < len(coarse) < len(groups):
        yield (
            f"{', '.join(coarse)}: trained on coarse labels, so only the accuracy and the "
            "calibration error on coarse labels are known."
        )
    shown: list[list[str]] = []
    for field in MACHINE:
        by_group = [{str(run.environment().get(field)) for run in group.runs} for group in groups]
        values = [" or ".join(sorted(found)) for found in by_group]
        if len(set().union(*by_group)) > 1 and values not in shown:
            yield f"Times are not comparable: `{field}` differs ({_listed(groups, values)})."
            shown.append(values)  # on a CPU, device and processor have the same value


def _listed(groups: Sequence[RunGroup], values: Sequence[str]) -> str:
    """Return the value of each group as text."""
    pairs = zip(groups, values, strict=True)
    return "; ".join(f"{group.name}: {value}" for group, value in pairs)
