"""Measure a run again, from its directory alone."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.load import load_data, needs_network
from hundredfold.inference.logits import predict_logits
from hundredfold.metrics.scores import VIEWS, measure
from hundredfold.models.info import ModelInfo
from hundredfold.runs.bundled import find_run
from hundredfold.runs.run import Run
from hundredfold.support.device import pick_device
from hundredfold.support.errors import DamagedError, UserError

ROUNDING = 1e-3
"""Nats by which the loss of the same weights may differ from one machine to another."""


def measure_model(
    model: nn.Module, test: Split, info: ModelInfo
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure a model on the test split, single view and with flip test-time augmentation.

    The latter averages the logits of each picture and of its mirror image. All probabilities, and
    so loss, calibration error and coarse predictions, are those of the calibrated logits.

    Returns:
        metrics `test` and `test_flip`, each as of `metrics.measure`, and `test_pictures`; and the
        tensors `logits` and `flip_logits` (N, C), as the model gives them, and `labels` (N,).
    """
    logits = predict_logits(model, test.parts(), info)
    flipped = (logits + predict_logits(model, (part.flip(3) for part in test.parts()), info)) / 2
    metrics = {
        "test": measure(logits / info.temperature, test.labels, info.labels, info.parents),
        "test_flip": measure(flipped / info.temperature, test.labels, info.labels, info.parents),
        "test_pictures": len(test),
    }
    return metrics, {"logits": logits, "flip_logits": flipped, "labels": test.labels}


def evaluate(run: Run | str | Path, data: Dataset | str = "", device: str = "") -> dict[str, Any]:
    """Measure a run's weights on the test split that it was trained beside.

    Args:
        run: the run, or its directory.
        data: where the data is now, as `--data` would name it, or the dataset itself; empty for
            where the run found it.
        device: as in `Config.device`; empty for the one that the run asked for.

    Returns:
        What `measure_model` measures: to the last digit what training recorded, on the same machine
        and device.

    Raises:
        UserError: no such run or device, the run is damaged, or the data is not at hand or not what
            the run was trained on.
    """
    run = find_run(run)
    model = run.model(pick_device(device or run.config().device))
    return measure_model(model, run_data(run, data).test, run.info())[0]


def compare_with_record(run: Run, metrics: Mapping[str, Any]) -> str:
    """Return in what `metrics`, as of `evaluate`, differ from what training recorded, in words.

    Returns:
        Nothing where all are equal, to the last digit.

    Raises:
        UserError: the run is not finished, or damaged.
    """
    recorded, apart, rounding = run.metrics(), [], True
    for view in VIEWS:
        was, now = recorded.get(view, {}), metrics[view]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) == now.get(name):
                continue
            by = abs(now.get(name, math.inf) - was.get(name, 0.0))
            rounding = rounding and (name != "loss" or by <= ROUNDING)
            apart.append(f"{name} of {view} by {by:.2g}")
    if not apart:
        return ""
    why = (
        "Differences of this size come from rounding: of another device, thread count or version "
        "of torch."
        if rounding
        else "That is more than rounding: data and weights are what they were, so this machine or "
        "version computes otherwise."
    )
    return f"NOT equal to what training recorded. They differ: {', '.join(apart)}. {why}"


def run_data_if_any(run: Run, data: Dataset | str = "") -> tuple[Dataset | None, str]:
    """Return what `run_data` does, and nothing; or None, and why the data is not at hand.

    Raises:
        UserError: data was named, and is not at hand.
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

    The run may be somebody else's. So nothing is fetched from the network because it says so, and
    what it names on the disk is used only where it has the digest of the run's data.

    Args:
        run: the run.
        data: as in `evaluate`.

    Raises:
        UserError: it cannot be found, is not what the run was trained on, or would have to be
            fetched and was not named.
    """
    source = data or run.config().data
    if not data and needs_network(run.config().data):
        raise UserError(
            f"{run} was trained on {source}, which would have to be fetched from the network. If "
            f"that is what you want, name it: --data {source}"
        )
    dataset = (
        source
        if isinstance(source, Dataset)
        else load_data(source, lambda _: None, size=run.info().image_size)
    )
    if dataset.digest() != run.environment().get("data_sha256"):
        raise UserError(
            f"{dataset.source} is not the data that {run} was trained on: its digest differs. "
            "Name the right one with --data."
        )
    return dataset.with_labels(run.info().labels)
