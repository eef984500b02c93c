"""Measure a run again, from its directory alone."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hundredfold.data import Split, load_data
from hundredfold.errors import UserError
from hundredfold.inference import predict_logits
from hundredfold.metrics import measure
from hundredfold.models import ModelInfo
from hundredfold.run import Run


def test_model(
    model: nn.Module, test: Split, info: ModelInfo
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure a model on the test split, single view and with flip test-time augmentation.

    Returns:
        metrics `test` and `test_flip`, each as of `metrics.measure`, and `test_pictures`; and the
        tensors `logits` and `flip_logits` (N, C) and `labels` (N,) that they come from.
    """
    logits, flipped = (
        predict_logits(model, test.images, info, flip=flip) for flip in (False, True)
    )
    metrics = {
        "test": measure(logits, test.labels, info.parents),
        "test_flip": measure(flipped, test.labels, info.parents),
        "test_pictures": len(test),
    }
    return metrics, {"logits": logits, "flip_logits": flipped, "labels": test.labels}


def evaluate(run: Run | str | Path, data: str = "") -> dict[str, Any]:
    """Measure a run's weights on the test split that it was trained beside.

    Args:
        run: the run, or its directory.
        data: where the data is now, as `--data` would name it; empty for where the run found it.

    Returns:
        What `test_model` measures: the same numbers, to the last digit, that training recorded on
        the same machine.

    Raises:
        UserError: no such run, or the data is not what the run was trained on.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    info, model = run.info, run.model()
    dataset = load_data(data or run.config.data)
    if dataset.digest() != run.environment.get("data_sha256"):
        raise UserError(
            f"{dataset.source} is not the data that {run} was trained on: its digest differs. "
            "Name the right one with --data."
        )
    return test_model(model, dataset.with_labels(info.labels).test, info)[0]
