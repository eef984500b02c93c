"""A search for better hyperparameters on the validation split, by Optuna."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hundredfold.config import Config
from hundredfold.data.dataset import Dataset
from hundredfold.support.device import own_generators, pick_device
from hundredfold.support.errors import DivergedError, UserError, extra, first_line
from hundredfold.support.jsonio import to_json
from hundredfold.support.signals import deferred_stop, stopped
from hundredfold.training.loop import StepRecord, train_events
from hundredfold.training.setup import Setup, as_recorded, make_setup, require_validation
from hundredfold.training.state import first_state


@dataclass(frozen=True)
class Range:
    """Where a field's values are looked for."""

    low: float
    high: float
    kind: Literal["linear", "log", "whole"] = "linear"

    def suggest(self, trial: Any, name: str) -> float | int:
        """Return an Optuna trial's value."""
        if self.kind == "whole":
            return int(trial.suggest_int(name, int(self.low), int(self.high)))
        return float(trial.suggest_float(name, self.low, self.high, log=self.kind == "log"))


FACTORS = {"lr": 4.0, "muon_lr": 4.0, "weight_decay": 8.0}
"""Fields that are looked for around a recipe's own value: down and up by these."""
RANGES = {
    "label_smoothing": Range(0.0, 0.4),
    "warmup": Range(0.05, 0.5),
    "pad": Range(0, 6, "whole"),
}
FEWEST = 4
"""Complete trials from which importances are known."""


@dataclass(frozen=True)
class Outcome:
    """A trial."""

    number: int
    state: str
    """complete, pruned (stopped since others were better by then), running or fail."""
    accuracy: float | None
    """`Tuning.metric` of this trial; of a pruned one when it was stopped."""
    values: dict[str, Any]


@dataclass(frozen=True)
class Tuning:
    """What a search has found so far."""

    study: str
    metric: Literal["fine_top1", "coarse_top1"]
    """What trials are judged by: this accuracy on the validation pictures (0..1), single view."""
    outcomes: tuple[Outcome, ...]
    best: Config
    """The recipe with the best trial's values."""
    importance: dict[str, float]
    """Of each field, the highest first: shares that add up to 1 (PED-ANOVA, Watanabe et al., 2023);
    empty of fewer than FEWEST complete trials, or where all reached the same."""


def search_space(config: Config, names: Sequence[str]) -> dict[str, Range]:
    """Return where the fields of these names are looked for.

    Args:
        config: the recipe, fitted to the number of pictures (`recipes.fitted`).
        names: fields; empty for the learning rates and the weight decay, as far as it has them.

    Raises:
        UserError: a field cannot be searched, or the recipe does not use it.
    """
    used = {
        name: Range(value / factor, value * factor, "log")
        for name, factor in FACTORS.items()
        if (value := getattr(config, name)) > 0
    }
    if config.optimizer != "muon":
        used.pop("muon_lr", None)
    if not names:
        return used
    for name in names:
        if name not in used | RANGES:
            raise UserError(
                f"--vary {name}: of {config.name} there may be varied {', '.join(used | RANGES)}."
            )
    return {name: (used | RANGES)[name] for name in names}


def tune(
    config: Config,
    dataset: Dataset,
    space: dict[str, Range],
    trials: int,
    storage: str,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> Tuning:
    """Train with different values and judge them by the validation pictures; the test is not read.

    Called again, or in several processes or machines with one storage, it goes on with the same
    study, up to that many trials in all. All trials have the recipe's seed.

    Args:
        config: the recipe, as each trial is to train it.
        dataset: what to train on.
        space: as of `search_space`.
        trials: how many in all.
        storage: address of Optuna's storage, such as sqlite:///tune.db.
        tell: takes each trial that has ended here.

    Raises:
        UserError: the extra is not installed, the recipe holds no pictures out or follows the
            clock, or the storage cannot be used.
    """
    optuna = _optuna()
    held_out = config.validation or dataset.validation is not None
    if config.budget or config.validate_on == "test" or not held_out:
        raise UserError("A search needs held-out pictures and epochs: --validation, no --budget.")
    with deferred_stop() as stop:  # a storage half made could never be used
        study = _study(optuna, config, dataset, space, storage)
    if stop.number:
        raise stopped(stop.number)
    setup = make_setup(
        config, dataset, pick_device(config.device)
    )  # what varies leaves all else be
    require_validation(setup.validation_split, config)

    def objective(trial: Any) -> float:
        # By the trial's number, which is unique: processes that search together never draw alike.
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + trial.number)
        values: dict[str, Any] = {name: place.suggest(trial, name) for name, place in space.items()}
        varied = dataclasses.replace(config, **values)
        return _train(dataclasses.replace(setup, config=varied), trial, optuna)

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    if len(study.get_trials(states=ended)) < trials:
        study.optimize(
            objective,
            callbacks=[
                lambda _, trial: tell(_outcome(trial)),
                optuna.study.MaxTrialsCallback(trials, states=ended),
            ],
        )
    return _tuning(optuna, study, config)


def _optuna() -> Any:
    with extra("tune", "Tuning needs"):
        import optuna  # noqa: PLC0415  # an extra
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # not what Ctrl-C interrupted
    return optuna


def _study(
    optuna: Any, config: Config, dataset: Dataset, space: dict[str, Range], storage: str
) -> Any:
    """Return the study of just this search, new or as far as it is."""
    same = dataclasses.replace(as_recorded(config, dataset), out="", device="", data="")
    what = to_json(same) + repr(sorted(space.items())) + dataset.digest()
    name = f"{config.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    return _created(optuna, storage, name)


def _created(optuna: Any, storage: str, name: str, again: int = 2) -> Any:
    """Make a study or find it; another process may be making the same storage just now."""
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
    except Exception as error:  # whatever the storage's driver comes up with
        if again:
            time.sleep(1)
            return _created(optuna, storage, name, again - 1)
        raise UserError(f"--storage {storage} cannot be used: {first_line(error)}") from error


def _train(setup: Setup, trial: Any, optuna: Any) -> float:
    """Return the accuracy on the validation pictures after training, or give up on the way."""
    name = f"{setup.config.labels}_top1"
    with own_generators(setup.device):
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


def _outcome(trial: Any) -> Outcome:
    reported = list(trial.intermediate_values.values())
    accuracy = trial.value if trial.value is not None else (reported or [None])[-1]
    return Outcome(trial.number, trial.state.name.lower(), accuracy, dict(trial.params))


def _tuning(optuna: Any, study: Any, config: Config) -> Tuning:
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise UserError("No trial came to its end: every one diverged. Lower --lr.")
    importance: dict[str, float] = {}
    if len(complete) >= FEWEST and len({trial.value for trial in complete}) > 1:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        importance = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Tuning(
        study=study.study_name,
        metric="fine_top1" if config.labels == "fine" else "coarse_top1",
        outcomes=tuple(_outcome(trial) for trial in study.trials),
        best=dataclasses.replace(config, **study.best_trial.params),
        importance=dict(importance),
    )
