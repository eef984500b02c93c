"""Run directories that are made: to train in, or of a model that is passed on."""

import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from hundredfold.config import Config
from hundredfold.models.info import ModelInfo
from hundredfold.runs.checkpoints import on_cpu
from hundredfold.runs.run import CONFIG, ENVIRONMENT, MODEL, WEIGHTS, Run
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.jsonio import as_json, to_json


def new_run(config: Config, info: ModelInfo, environment: dict[str, Any]) -> Run:
    """Write what is known before the first step to `<out>/<name>-<UTC time>-s<seed>`.

    The folder appears whole: it is made under a name of its own first.

    Raises:
        UserError: the folder cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name, out = f"{config.name}-{stamp}-s{config.seed}", make_folder(expanded(config.out))
    try:
        making = out / f".{name}.{secrets.token_hex(4)}"
        making.mkdir()
    except OSError as error:
        raise UserError(f"Cannot make a folder in {out}: {error.strerror}.") from error
    try:
        save_file(making / CONFIG, to_json(config))
        save_file(making / MODEL, to_json(info))
        save_file(making / ENVIRONMENT, as_json(environment))
        return Run(_named(making, name))
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _named(making: Path, name: str) -> Path:
    """Give a folder its name, or the name with a number where that is taken; return its path."""
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = making.with_name(name + suffix)
        if not path.exists():
            with suppress(OSError):  # another process may have been faster
                return making.rename(path)
    raise UserError(f"There are already a hundred runs named {name} in {making.parent}.")


def copy_model(
    run: Run,
    folder: Path,
    config: Config,
    weights: Mapping[str, Tensor] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Run:
    """Write what predicting needs of a finished run as a run of its own, and return that.

    Args:
        run: the run; its info and metrics are taken over.
        folder: is there already.
        config: what the copy tells of the training.
        weights: in place of the run's own.
        environment: what the copy tells of the machine; None for nothing.

    Raises:
        UserError: the run is not finished or damaged, or the folder cannot be written.
    """
    metrics = run.metrics()
    save_file(folder / CONFIG, to_json(config))
    save_file(folder / MODEL, to_json(run.info()))
    save_file(folder / WEIGHTS, save(on_cpu(weights or run.weights())))
    if environment is not None:
        save_file(folder / ENVIRONMENT, as_json(environment))
    copy = Run(folder)
    copy.seal(metrics)
    return copy
