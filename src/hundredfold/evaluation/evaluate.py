"""Evaluate the weights of a run again, from its directory and its data."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_data, needs_network
from hundredfold.inference.features import predict_with_features
from hundredfold.inference.known import FOREIGN, Known
from hundredfold.inference.logits import predict_logits
from hundredfold.inference.predict import Predictor
from hundredfold.metrics.intervals import accuracy_intervals
from hundredfold.metrics.scores import VIEWS, measure
from hundredfold.models.info import ModelInfo
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.errors import DamagedError, UserError

ROUNDING = 1e-3
"""Largest difference in nats between the losses of the same weights on two machines."""


def measure_model(
    model: nn.Module, test: Split, info: ModelInfo, known: Known | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure a model on the test split, single view and with flip test-time augmentation.

    Flip test-time augmentation averages the logits of each picture and its mirror image. The loss,
    the calibration error and the coarse predictions use the calibrated probabilities.

    Args:
        model: as in `predict_logits`.
        test: the test split.
        info: as in `predict_logits`.
        known: how the model recognises pictures that show none of its classes.

    Returns:
        The metrics `test` and `test_flip`, each as `measure` returns them; `intervals`, which holds
        for each of the two the 95 % confidence interval of every accuracy, as
        `accuracy_intervals` returns it; `test_pictures`; and with `known` also `foreign`, the share
        of the test pictures that count as showing none of the classes. Second, the tensors `logits`
        and `flip_logits` (N, C), not calibrated, `labels` (N,), and with `known` also `known` (N,).
    """
    tensors = {"labels": test.labels}
    if known:
        logits, features = predict_with_features(model, test.parts(), info)
        tensors["known"] = known(logits, features)
    else:
        logits = predict_logits(model, test.parts(), info)
    flipped = (logits + predict_logits(model, (part.flip(3) for part in test.parts()), info)) / 2
    views = {
        "test": measure(logits / info.temperature, test.labels, info.labels, info.parents),
        "test_flip": measure(flipped / info.temperature, test.labels, info.labels, info.parents),
    }
    intervals = {view: accuracy_intervals(found, len(test)) for view, found in views.items()}
    metrics = {**views, "intervals": intervals, "test_pictures": len(test)}
    if known:
        metrics["foreign"] = (tensors["known"] < FOREIGN).float().mean().item()
    return metrics, tensors | {"logits": logits, "flip_logits": flipped}


def evaluate(run: Run | str | Path, data: Dataset | str = "", device: str = "") -> dict[str, Any]:
    """Measure a run's weights on the test split of its data.

    Args:
        run: the run, or its directory.
        data: the dataset, or its current location as in `--data`; empty for the location that the
            run recorded.
        device: as in `Config.device`; empty for the device in the run's configuration.

    Returns:
        The metrics of `measure_model`. On the same machine and device, every digit equals what
        training recorded.

    Raises:
        UserError: there is no such run or device, the run is damaged, or the data is not available
            or not the data that the run was trained on.

    Examples:
        >>> evaluate(run)["test"] == run.metrics()["test"]
        True
    """
    run = find_run(run)
    model = Predictor.load(run, device or run.config().device)
    return measure_model(model.model, run_data(run, data).test, model.info, model.known)[0]


def compare_with_record(run: Run, metrics: Mapping[str, Any]) -> str:
    """Return sentences about the differences between `evaluate`'s metrics and the recorded ones.

    Returns:
        An empty string if every digit is equal.

    Raises:
        UserError: the run is unfinished or damaged.
    """
    recorded, differences, rounding = run.metrics(), [], True
    for view in VIEWS:
        was, now = recorded.get(view, {}), metrics[view]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) == now.get(name):
                continue
            difference = abs(now.get(name, math.inf) - was.get(name, 0.0))
            rounding = rounding and (name != "loss" or difference <= ROUNDING)
            differences.append(f"{name} of {view} by {difference:.2g}")
    if not differences:
        return ""
    reason = (
        "Differences of this size come from rounding, which depends on the device, the number of "
        "threads and the version of torch."
        if rounding
        else "This is more than rounding. The data and the weights are unchanged, so this machine "
        "or this version of torch computes differently."
    )
    return f"The results DIFFER from the recorded ones: {', '.join(differences)}. {reason}"


def run_data_if_any(run: Run, data: Dataset | str = "") -> tuple[Dataset | None, str]:
    """Return the data of `run_data` and an empty string, or None and why it is not available.

    Raises:
        UserError: `data` is given, but not available.
        DamagedError: the run is damaged.
    """
    try:
        return run_data(run, data), ""
    except UserError as error:
        if data or isinstance(error, DamagedError):
            raise
        return None, str(error)


def run_data(run: Run, data: Dataset | str = "") -> Dataset:
    """Return the data that a run was trained on, with the labels that it learned.

    The run may come from somebody else. So nothing is downloaded only because the run names it, and
    data on this machine is used only if its digest equals the one that the run recorded.

    Args:
        run: the run.
        data: as in `evaluate`.

    Raises:
        UserError: the data cannot be found, is not the data that the run was trained on, or would
            have to be downloaded and `data` does not name it.
    """
    source = data or run.config().data
    if not data and needs_network(run.config().data):
        raise UserError(
            f"{run} was trained on {source}, which would have to be downloaded. To allow "
            f"that, name it: --data {source}"
        )
    info = run.info()
    dataset = (
        source
        if isinstance(source, Dataset)
        else load_data(
            source, lambda _: None, size=info.image_size, fit=info.fit, cache=run.config().cache
        )
    )
    if dataset.digest() != run.environment().get("data_sha256"):
        raise UserError(
            f"{dataset.source} is not the data that {run} was trained on: its digest differs. "
            "Name the right data with --data."
        )
    return dataset.with_labels(info.labels)
