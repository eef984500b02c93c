"""Choose a recipe for the data: pretrained features or training from scratch.

Only training and validation pictures take part in a choice, never test pictures.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hundredfold.config import Config
from hundredfold.data import cifar100
from hundredfold.data.collection import choose_size, list_pictures
from hundredfold.data.dataset import Dataset
from hundredfold.data.load import find_source, load_to_train
from hundredfold.metrics.scores import learned_top1
from hundredfold.models.architectures import TIMM
from hundredfold.models.installed import INSTALLED, can_fold, is_installed
from hundredfold.support.console import say
from hundredfold.support.device import fork_rng, pick_device
from hundredfold.support.errors import UserError
from hundredfold.support.units import parse_duration
from hundredfold.training.budget import choose_recipe, plan_budget
from hundredfold.training.choose_fit import Loaded, load_with_best_fit
from hundredfold.training.head import SAMPLE, head_order
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import Setup, as_recorded, make_setup
from hundredfold.training.state import first_state

SMALL = 48
"""Side in pixels up to which pictures may be learned better from scratch: pretrained features are
made for photos."""
UNLIKE_PHOTOS = 0.6
"""Accuracy of a head on pretrained features below which the pictures may be unlike photos."""
SHORT, SHORT_SHARE = 20.0, 0.2
"""Time in seconds for a training from scratch that is compared with pretrained features, and the
largest share of a budget that it takes."""

Configure = Callable[[str], Config]
"""Function that returns the configuration of a recipe with the user's changes."""


def choose(configure: Configure, tell: Callable[[str], None] = say) -> Loaded:
    """Return the configuration that suits the data and the budget.

    CIFAR-100 is learned from scratch. A person's own pictures start from pretrained features,
    unless a short training from scratch does better on the validation pictures. That is tried if
    the pictures are small or the features are poor.

    Args:
        configure: returns the configuration of a recipe with what the user has set. If the user has
            set the model, it decides.
        tell: receives a sentence about the choice.

    Raises:
        UserError, UnavailableError: as `load_data` and `make_setup` do.

    Examples:
        >>> choose(lambda name: RECIPES[name](data="sample")).config.name
        'fast'
    """
    try:
        scratch = configure("fast")
    except UserError as error:
        return _only_pretrained(configure, error, tell)
    return _choose_start(scratch, configure, tell)


def _choose_start(scratch: Config, configure: Configure, tell: Callable[[str], None]) -> Loaded:
    """Return the choice; the arguments are those of `choose`, and the configuration of `fast`."""
    unsuited = ""
    try:
        tuned = configure("finetune")
    except UserError as error:  # --widths, for example, is for training from scratch
        tuned, unsuited = scratch, str(error)
    path, has_model = find_source(scratch.data), scratch.model == tuned.model
    if path is None or cifar100.is_at(path):
        return _from_scratch(configure, tell)
    if unsuited:
        tell(f"The network is trained from scratch. Recipe finetune is not possible: {unsuited}")
    if has_model and (scratch.weights or can_fold(tuned.model)):
        return load_with_best_fit(tuned, tell)
    if has_model or not _has_weights(tuned, tell):
        return _from_scratch(configure, tell)
    return _weigh(tuned, path, configure, tell)


def _has_weights(config: Config, tell: Callable[[str], None]) -> bool:
    """Return whether the weights of a pretrained model can be loaded as far as is known."""
    if config.weights != INSTALLED or is_installed(config.model.removeprefix(TIMM)):
        return True
    tell("The pretrained weights are not installed, so the network is trained from scratch.")
    return False


def _weigh(tuned: Config, path: Path, configure: Configure, tell: Callable[[str], None]) -> Loaded:
    """Return the better of pretrained features and training from scratch, by validation pictures.

    Args:
        tuned: the configuration of a pretrained model.
        path: path of the pictures.
        configure: as in `choose`.
        tell: as in `choose`.
    """
    loaded = load_with_best_fit(tuned, tell)
    loaded = loaded._replace(started=loaded.started or time.perf_counter())
    config, dataset = loaded.config, loaded.dataset
    side = choose_size(_training_paths(path, dataset))
    with fork_rng(pick_device(config.device)):
        features = _features_accuracy(config, dataset)
        if features is None or (side > SMALL and features >= UNLIKE_PHOTOS):
            tell(_describe(features))
            return loaded
        other = _from_scratch(configure, lambda _: None)
        accuracy = _short_accuracy(
            replace(other.config, validation=config.validation), other.dataset
        )
    if accuracy is None:
        tell(
            f"{_describe(features)} A training from scratch gave no accuracy to compare, because "
            f"{_short(tuned)} were too short for it, or because it diverged."
        )
        return loaded
    if accuracy <= features:
        tell(
            f"{_describe(features)} A network that was trained from scratch for {_short(tuned)} "
            f"classifies {accuracy:.1%} of these pictures correctly."
        )
        return loaded
    tell(
        f"The network is trained from scratch: after {_short(tuned)}, it classifies {accuracy:.1%} "
        "of the validation pictures correctly. A linear head on pretrained features (`train "
        f"finetune`) classifies {features:.1%}."
    )
    return other._replace(started=loaded.started)


def _only_pretrained(configure: Configure, error: UserError, tell: Callable[[str], None]) -> Loaded:
    """Return the choice if settings such as --frozen are only for pretrained networks.

    Args:
        configure: as in `choose`.
        error: why the settings do not suit a network that is trained from scratch.
        tell: as in `choose`.

    Raises:
        UserError: the error, if the settings do not suit a pretrained network or the data either.
    """
    try:
        tuned = configure("finetune")
    except UserError:
        raise error from None
    path = find_source(tuned.data)
    if path is None or cifar100.is_at(path):
        raise error
    return load_with_best_fit(tuned, tell)


def _describe(accuracy: float | None) -> str:
    """Return a sentence about the choice of pretrained features."""
    sentence = (
        "Training starts from pretrained features (--model whitenet would start from scratch)."
    )
    if accuracy is None:
        return sentence
    return (
        f"{sentence} A linear head on them classifies {accuracy:.1%} of the validation pictures "
        "correctly."
    )


def _training_paths(path: Path, dataset: Dataset) -> list[Path]:
    names = set(dataset.train.names)
    return [entry.path for entry in list_pictures(path).entries if entry.name in names]


def _from_scratch(configure: Configure, tell: Callable[[str], None]) -> Loaded:
    """Return the recipe that suits the budget among those that train from scratch."""
    config, dataset = load_to_train(configure("fast"), tell)
    if not config.budget:
        return Loaded(config, dataset)
    started = time.perf_counter()
    name = choose_recipe(config, dataset)
    return Loaded(replace(configure(name), fit=dataset.fit), dataset, started)


def _features_accuracy(config: Config, dataset: Dataset) -> float | None:
    """Return the validation accuracy of a head on pretrained features of some training pictures.

    Returns:
        The accuracy (0..1); None if there are no validation pictures.
    """
    setup = _setup(config, dataset)
    some = setup.train_split.select(head_order(setup)[:SAMPLE])
    head = first_state(replace(setup, train_split=some)).head
    if head is None or not head.validation:
        return None
    return head.validation[learned_top1(head.validation)]


def _short_accuracy(config: Config, dataset: Dataset) -> float | None:
    """Return the validation accuracy after a short training from scratch (0..1).

    Returns:
        The accuracy; None if the time is too short on this machine, or the training diverges.
    """
    setup = _setup(replace(config, budget=_short(config)), dataset)
    try:
        setup, clock = plan_budget(setup, 0, time.perf_counter())
        *_, last = train_epochs(first_state(setup), setup, clock)
    except UserError:
        return None
    return last.validation[learned_top1(last.validation)]


def _short(config: Config) -> str:
    """Return the time for the short training, as `Config.budget`."""
    seconds = SHORT_SHARE * parse_duration(config.budget) if config.budget else SHORT
    return f"{min(SHORT, seconds):g}s"


def _setup(config: Config, dataset: Dataset) -> Setup:
    dataset = dataset.with_labels(config.labels)
    return make_setup(as_recorded(config, dataset), dataset, pick_device(config.device))
