"""Ablation: train a recipe without each of its parts in turn."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hundredfold.augment import NO_AUGMENTATION, generator
from hundredfold.config import PLACES, Config
from hundredfold.data.dataset import Dataset
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.scores import learned_top1, measure
from hundredfold.models.architectures import fixed_options
from hundredfold.runs.run import Run
from hundredfold.support.console import say
from hundredfold.support.errors import DivergedError, UserError
from hundredfold.support.files import expanded
from hundredfold.training.fitting import fitted
from hundredfold.training.setup import as_recorded, require_validation, split_dataset
from hundredfold.training.train import train

WITHOUT: Mapping[str, dict[str, Any]] = {
    "batch norm": {"batch_norm": False},
    "augmentation": dict(NO_AUGMENTATION),
    "residuals": {"residual": False},
    "weight decay": {"weight_decay": 0.0},
    "gradient clipping": {"clip_value": 0.0},
    "label smoothing": {"label_smoothing": 0.0},
    "lookahead": {"lookahead": 0.0},
}
"""Changes to the configuration that leave out each part of a recipe."""
MAX_TRAINING_PICTURES = 5000
"""Most training pictures on which the accuracy is measured."""


@dataclass(frozen=True)
class AblationResult:
    """One training of an ablation."""

    without: str
    """The part left out; empty for the full recipe."""
    seed: int
    run: Path
    """The run directory."""
    training: dict[str, float]
    """Metrics on training pictures without augmentation, as returned by `measure`; empty if
    training failed."""
    validation: dict[str, float]
    """Metrics on the validation pictures; empty if training failed."""
    failure: str = ""
    """Why training failed, such as divergence; empty if it did not."""

    @property
    def gap(self) -> float | None:
        """Overfitting: accuracy on training pictures minus accuracy on validation pictures.

        None if training failed.
        """
        if self.failure:
            return None
        name = learned_top1(self.training)
        return self.training[name] - self.validation[name]


def variants(config: Config) -> dict[str, Config]:
    """Return the recipe, and the recipe without each of its parts, by the name of the part.

    The full recipe comes first, under an empty name. All variants are judged on validation
    pictures, even if the recipe is judged on the test set, because an ablation guides a choice.
    """
    if config.validate_on == "test" or not config.validation:
        config = dataclasses.replace(config, validation=0.05, validate_on="validation")
    configs = {"": dataclasses.replace(config, name=f"{config.name}-full")}
    for part, changes in WITHOUT.items():
        if changes.keys() & fixed_options(config.model):
            continue
        if not config.epochs and part != "augmentation":  # only a head is fitted
            continue
        changed = dataclasses.replace(config, **changes)
        if changed != config:
            name = f"{config.name}-without-{part.replace(' ', '-')}"
            configs[part] = dataclasses.replace(changed, name=name)
    return configs


def ablate(
    config: Config,
    dataset: Dataset,
    seeds: int,
    tell: Callable[[str], None] = say,
    *,
    quiet: bool = False,
) -> Iterator[AblationResult]:
    """Train every variant of a recipe with every seed, and yield the result of each training.

    A variant that is already finished in `config.out` is not trained again, so an interrupted
    ablation continues.

    Args:
        config: the recipe; `out` is the folder of all its runs.
        dataset: the data to train on.
        seeds: number of seeds (0, 1, ...) of each variant.
        tell: receives a line about each training before it starts.
        quiet: print nothing about the trainings themselves.

    Raises:
        UserError: the configuration has a budget, or does not fit the data or the machine.

    Examples:
        >>> recipe, dataset = quick(epochs=0.2, device="cpu"), load_sample()
        >>> results = ablate(recipe, dataset, seeds=1, quiet=True)
        >>> next(results).without  # the full recipe comes first, nothing is left out
        quick, full recipe, seed 0
        ''
    """
    if config.budget:
        raise UserError("An ablation compares equally long trainings: use --epochs, not --budget.")
    config = fitted(config, len(dataset.train))
    full = variants(config)[""]
    require_validation(split_dataset(dataset, full)[1], full)
    if full.validation != config.validation and dataset.validation is None:
        tell(f"For the comparison, {full.validation:.0%} of the training pictures are held out.")
    finished, digest = _finished_runs(expanded(config.out)), dataset.digest()
    for seed in range(seeds):
        for part, variant in variants(config).items():
            learned = dataset.with_labels(variant.labels)
            wanted = dataclasses.replace(as_recorded(variant, learned), seed=seed)
            run = finished.get((_key(wanted), digest))
            tell(
                f"{config.name}, {variant_name(part)}, seed {seed}"
                + (f": already in {run}" if run else "")
            )
            try:
                run = run or train(wanted, dataset, quiet=quiet)
            except DivergedError as error:
                yield AblationResult(part, seed, Path(), {}, {}, str(error))
                continue
            yield _measure(part, run, dataset)


@dataclass(frozen=True)
class VariantSummary:
    """The accuracies of a variant over its seeds."""

    without: str
    """The part left out; empty for the full recipe."""
    seeds: int
    """Number of seeds, including those whose training failed."""
    training: tuple[float, ...]
    """Accuracy (0..1) on training pictures for each seed whose training did not fail."""
    validation: tuple[float, ...]
    """Accuracy (0..1) on validation pictures for each of these seeds."""


def summarize(results: Sequence[AblationResult], metric: str) -> list[VariantSummary]:
    """Return a summary of each variant by one metric, the full recipe first."""
    summaries = []
    for part in dict.fromkeys(result.without for result in results):
        members = [result for result in results if result.without == part]
        trained = [result for result in members if not result.failure]
        training = tuple(result.training[metric] for result in trained)
        validation = tuple(result.validation[metric] for result in trained)
        summaries.append(VariantSummary(part, len(members), training, validation))
    return summaries


def variant_name(without: str) -> str:
    """Return the name of a variant, by the part left out."""
    return f"without {without}" if without else "full recipe"


def _key(config: Config) -> Config:
    """Return the fields that two runs on the same pictures share if they are the same training."""
    return dataclasses.replace(config, **PLACES)


def _finished_runs(folder: Path) -> dict[tuple[Config, str], Run]:
    """Return the finished runs in a folder, by their `_key` and the digest of their data."""
    runs = {}
    for path in sorted(folder.glob("*")):
        run = Run(path)
        try:
            if run.finished:
                runs[_key(run.config()), str(run.environment()["data_sha256"])] = run
        except (UserError, KeyError):  # a damaged run is trained again
            continue
    return runs


def _measure(part: str, run: Run, dataset: Dataset) -> AblationResult:
    """Return the result of a finished run, measured on pictures without augmentation."""
    config, info = run.config(), run.info()
    dataset = dataset.with_labels(config.labels)
    training, held_out = split_dataset(dataset, config)
    sample = torch.randperm(len(training), generator=generator(0, "ablation"))[
        :MAX_TRAINING_PICTURES
    ]
    chosen = training.select(sample)
    model, head = run.model(), run.metrics().get("head") or {}
    # A head that was fitted to the validation pictures in the end was measured with them before.
    refitted = head.get("refitted", False)
    splits = (chosen,) if refitted else (chosen, held_out)
    trained, *others = [
        measure(predict_logits(model, split.parts(), info), split.labels, info.labels, info.parents)
        for split in splits
    ]
    validated = head["validation"] if refitted else others[0]
    return AblationResult(part, config.seed, run.path, trained, validated)
