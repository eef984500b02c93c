"""Search for better hyperparameters on the validation split with Optuna."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hundredfold.config import PLACES, Config
from hundredfold.data.dataset import Dataset
from hundredfold.metrics.scores import top1_key
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.errors import DivergedError, UserError, extra, first_line
from hundredfold.support.jsonio import to_json
from hundredfold.support.signals import deferred_stop, stop_exception
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.setup import Setup, as_recorded, make_setup, require_validation
from hundredfold.training.state import first_state


@dataclass(frozen=True)
class SearchRange:
    """The range in which values of a field are searched."""

    low: float
    high: float
    kind: Literal["linear", "log", "integer"] = "linear"

    def suggest(self, trial: Any, name: str) -> float | int:
        """Return the value that an Optuna trial suggests."""
        if self.kind == "integer":
            return int(trial.suggest_int(name, int(self.low), int(self.high)))
        return float(trial.suggest_float(name, self.low, self.high, log=self.kind == "log"))


FACTORS = {"lr": 4.0, "muon_lr": 4.0, "weight_decay": 8.0}
"""Fields that are searched around the recipe's own value: the factors down and up."""
RANGES = {
    "label_smoothing": SearchRange(0.0, 0.4),
    "warmup": SearchRange(0.05, 0.5),
    "pad": SearchRange(0, 6, "integer"),
}
"""Fields that are searched in a fixed range."""
MIN_TRIALS = 4
"""Fewest complete trials from which importances are computed."""


@dataclass(frozen=True)
class Trial:
    """One training with suggested values."""

    number: int
    state: str
    """complete, pruned (stopped early because other trials were better), running or fail."""
    accuracy: float | None
    """`TuningResult.metric` of this trial; for a pruned trial, its value when it was stopped."""
    values: dict[str, Any]
    """Suggested value of each field."""


@dataclass(frozen=True)
class TuningResult:
    """What a search has found so far."""

    study: str
    """Name of the study in Optuna's storage."""
    metric: str
    """The accuracy (0..1) on the validation pictures, single view, by which trials are judged."""
    trials: tuple[Trial, ...]
    best: Config
    """The recipe with the values of the best trial."""
    importance: dict[str, float]
    """Importance of each field, highest first, as shares that add up to 1 (PED-ANOVA, Watanabe et
    al., 2023); empty if fewer than MIN_TRIALS trials are complete, or if all reached the same
    accuracy."""


def search_space(config: Config, names: Sequence[str]) -> dict[str, SearchRange]:
    """Return the range of each field to search.

    Args:
        config: the recipe, fitted to the number of pictures (`training.fitting.fitted`).
        names: names of the fields; empty for the learning rates and the weight decay, as far as
            the recipe uses them.

    Raises:
        UserError: a field cannot be searched, or the recipe does not use it.
    """
    used = {
        name: SearchRange(value / factor, value * factor, "log")
        for name, factor in FACTORS.items()
        if (value := getattr(config, name)) > 0
    }
    if config.optimizer != "muon":
        used.pop("muon_lr", None)
    if not names:
        return used
    possible = used | RANGES
    if config.crop_area < 1:  # such crops replace the border
        del possible["pad"]
    for name in names:
        if name not in possible:
            raise UserError(
                f"--vary {name}: the fields of {config.name} that can be varied are "
                f"{', '.join(possible)}."
            )
    return {name: possible[name] for name in names}


def tune(
    config: Config,
    dataset: Dataset,
    space: dict[str, SearchRange],
    trials: int,
    storage: str,
    tell: Callable[[Trial], None] = lambda _: None,
) -> TuningResult:
    """Train with different values and judge them on the validation pictures, not on the test set.

    Called again, or in several processes or on several machines with one storage, it continues the
    same study, up to `trials` trials in total. All trials have the recipe's seed.

    Args:
        config: the recipe, as each trial trains it.
        dataset: the data to train on.
        space: as returned by `search_space`.
        trials: total number of trials.
        storage: address of Optuna's storage, such as sqlite:///tune.db.
        tell: receives each trial that this call has finished.

    Raises:
        UserError: Optuna is not installed, the recipe holds out no pictures, has a budget or no
            epochs, or the storage cannot be used.

    Examples:
        >>> config, dataset = quick(epochs=0.2, device="cpu"), load_sample()
        >>> space = search_space(config, ["lr"])
        >>> result = tune(config, dataset, space, trials=1, storage="sqlite:///tune.db")
        >>> list(result.trials[0].values)
        ['lr']
    """
    optuna, dataset = _optuna(), dataset.with_labels(config.labels)
    held_out = config.validation or dataset.validation is not None
    if config.budget or config.validate_on == "test" or not held_out:
        raise UserError(
            "tune compares trials on validation pictures after equal numbers of epochs: set "
            "--validation above 0, and leave out --budget."
        )
    if not config.epochs:
        raise UserError("--epochs is 0: only the head is trained, so there is nothing to tune.")
    with deferred_stop() as stop:  # a half-created storage could never be used
        study = _study(optuna, config, dataset, space, storage)
    if stop.number:
        raise stop_exception(stop.number)
    # One setup serves all trials: the fields that vary do not change it.
    setup = make_setup(config, dataset, pick_device(config.device))
    require_validation(setup.validation_split, config)

    def objective(trial: Any) -> float:
        # The trial's number is unique, so that parallel processes never draw the same values.
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + trial.number)
        values: dict[str, Any] = {
            name: search.suggest(trial, name) for name, search in space.items()
        }
        varied = dataclasses.replace(setup.config, **values)
        return _train(dataclasses.replace(setup, config=varied), trial, optuna)

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    if len(study.get_trials(states=ended)) < trials:
        study.optimize(
            objective,
            callbacks=[
                lambda _, trial: tell(_trial(trial)),
                optuna.study.MaxTrialsCallback(trials, states=ended),
            ],
        )
    return _result(optuna, study, config)


def _optuna() -> Any:
    with extra("tune", "Tuning needs"):
        import optuna  # noqa: PLC0415  # an extra
    optuna.logging.set_verbosity(
        optuna.logging.ERROR
    )  # no message about a trial that Ctrl-C interrupted
    return optuna


def _study(
    optuna: Any, config: Config, dataset: Dataset, space: dict[str, SearchRange], storage: str
) -> Any:
    """Return the study of this search: the existing one, or a new one."""
    recorded = as_recorded(config, dataset)  # what depends on the machine does not matter
    weights = Path(recorded.weights).name
    same = dataclasses.replace(recorded, **PLACES, precision=config.precision, weights=weights)
    what = to_json(same) + repr(sorted(space.items())) + dataset.digest()
    name = f"{config.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    return _create_study(optuna, storage, name)


def _create_study(optuna: Any, storage: str, name: str, again: int = 2) -> Any:
    """Create or load a study; retry, because another process may be creating the same storage."""
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
    except Exception as error:  # the storage's driver may raise anything
        if again:
            time.sleep(1)
            return _create_study(optuna, storage, name, again - 1)
        raise UserError(f"--storage {storage} cannot be used: {first_line(error)}") from error


def _train(setup: Setup, trial: Any, optuna: Any) -> float:
    """Return the accuracy on the validation pictures after training.

    Raises:
        optuna.TrialPruned: the training diverged, or other trials are better.
    """
    name = top1_key(setup.config.labels)
    with fork_rng(setup.device):
        state = first_state(setup)
        try:
            for event in train_events(state, setup):
                if isinstance(event, StepRecord):
                    continue
                trial.report(event.validation[name], event.epoch)
                if state.progress < 1 and trial.should_prune():
                    raise optuna.TrialPruned
        except DivergedError as error:
            raise optuna.TrialPruned from error
    return state.history[-1].validation[name]


def _trial(trial: Any) -> Trial:
    """Return an Optuna trial as a `Trial`."""
    reported = list(trial.intermediate_values.values())
    accuracy = trial.value if trial.value is not None else (reported or [None])[-1]
    return Trial(trial.number, trial.state.name.lower(), accuracy, dict(trial.params))


def _result(optuna: Any, study: Any, config: Config) -> TuningResult:
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise UserError("No trial is complete: every one diverged. Lower --lr.")
    importance: dict[str, float] = {}
    if len(complete) >= MIN_TRIALS and len({trial.value for trial in complete}) > 1:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        importance = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return TuningResult(
        study=study.study_name,
        metric=top1_key(config.labels),
        trials=tuple(_trial(trial) for trial in study.trials),
        best=dataclasses.replace(config, **study.best_trial.params),
        importance=dict(importance),
    )
