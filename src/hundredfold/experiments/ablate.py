"""The study that the tutorial asks its reader for: a recipe without each of its parts in turn."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hundredfold.augment import generator
from hundredfold.config import Config
from hundredfold.data.dataset import Dataset
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.scores import learned_top1, measure
from hundredfold.models.architectures import fixed_options
from hundredfold.recipes import fitted
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.support.files import expanded
from hundredfold.training.setup import as_recorded, require_validation, split_dataset
from hundredfold.training.train import train

WITHOUT: Mapping[str, dict[str, Any]] = {
    "batch norm": {"batch_norm": False},
    "augmentation": {"pad": 0, "flip": "none"},
    "residuals": {"residual": False},
    "weight decay": {"weight_decay": 0.0},
    "gradient clipping": {"clip_value": 0.0},
    "label smoothing": {"label_smoothing": 0.0},
    "lookahead": {"lookahead": 0.0},
}
"""Parts of a recipe, and what leaves each out."""
TRAINING_PICTURES = 5000
"""How many of them, at most, the accuracy on training pictures is measured on."""


@dataclass(frozen=True)
class Outcome:
    """One training of an ablation."""

    without: str
    """The part left out; empty for the whole recipe."""
    seed: int
    run: Path
    training: dict[str, float]
    """Metrics on training pictures without augmentation, as of `metrics.measure`; empty where
    training failed."""
    validation: dict[str, float]
    """Metrics on the validation pictures; empty where training failed."""
    failure: str = ""
    """Why training failed, where it did: it may diverge without a part."""

    @property
    def gap(self) -> float:
        """Accuracy on training pictures less that on validation pictures: overfitting."""
        name = learned_top1(self.training)
        return self.training[name] - self.validation[name]


def variants(config: Config) -> dict[str, Config]:
    """Return the recipe and what it is without each part that it has, by the part's name.

    The whole recipe comes first, under the empty name. All are judged on validation pictures, also
    where the recipe judges on the test set: an ablation is made to choose by.
    """
    if config.validate_on == "test" or not config.validation:
        config = dataclasses.replace(config, validation=0.05, validate_on="validation")
    found = {"": dataclasses.replace(config, name=f"{config.name}-whole")}
    for part, changes in WITHOUT.items():
        if changes.keys() & fixed_options(config.model):
            continue
        changed = dataclasses.replace(config, **changes)
        if changed != config:
            name = f"{config.name}-without-{part.replace(' ', '-')}"
            found[part] = dataclasses.replace(changed, name=name)
    return found


def ablate(
    config: Config,
    dataset: Dataset,
    seeds: int,
    tell: Callable[[str], None] = say,
    *,
    quiet: bool = False,
) -> Iterator[Outcome]:
    """Train every variant of a recipe with every seed, and yield how each came out.

    What is finished in `config.out` already is not trained again: an ablation that was interrupted
    goes on where it was.

    Args:
        config: the recipe; `out` is the folder of all its runs.
        dataset: what to train on.
        seeds: seeds 0, 1, ... of each variant.
        tell: takes a line about what comes next.
        quiet: print nothing of the trainings themselves.

    Raises:
        UserError: the configuration has a budget, or does not fit the data or the machine.
    """
    if config.budget:
        raise UserError("An ablation compares equal trainings: give it epochs, not a budget.")
    config = fitted(config, len(dataset.train))
    whole = variants(config)[""]
    require_validation(split_dataset(dataset, whole)[1], whole)
    done, digest = _finished(expanded(config.out)), dataset.digest()
    for seed in range(seeds):
        for part, variant in variants(config).items():
            wanted = dataclasses.replace(as_recorded(variant, dataset), seed=seed)
            what = f"without {part}" if part else "whole"
            run = done.get((_key(wanted), digest))
            tell(f"{config.name}, {what}, seed {seed}" + (f": already in {run}" if run else ""))
            try:
                run = run or train(wanted, dataset, quiet=quiet)
            except DivergedError as error:
                yield Outcome(part, seed, Path(), {}, {}, str(error))
                continue
            yield _outcome(part, run, dataset)


def _key(config: Config) -> Config:
    """Return what two runs on the same pictures must share to be the same training.

    Where the runs and the pictures lie does not matter.
    """
    return dataclasses.replace(config, out="", data="", device="auto")


def _finished(folder: Path) -> dict[tuple[Config, str], Run]:
    """Return the finished runs in a folder by what they did with which data."""
    found = {}
    for path in sorted(folder.glob("*")):
        run = Run(path)
        try:
            if run.finished:
                found[_key(run.config()), str(run.environment()["data_sha256"])] = run
        except (UserError, KeyError):  # damaged: it is trained again
            continue
    return found


def _outcome(part: str, run: Run, dataset: Dataset) -> Outcome:
    """Measure a finished run on training pictures without augmentation."""
    config, info = run.config(), run.info()
    dataset = dataset.with_labels(config.labels)
    training, _ = split_dataset(dataset, config)
    some = torch.randperm(len(training), generator=generator(0, "ablation"))[:TRAINING_PICTURES]
    seen = training[some]
    logits = predict_logits(run.model(), seen.images, info)
    measured = measure(logits, seen.labels, info.labels, info.parents)
    return Outcome(part, config.seed, run.path, measured, run.history()[-1].validation)
