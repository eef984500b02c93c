"""New run directories: one to train in, or a copy of a trained model to publish."""

import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from hundredfold.config import Config
from hundredfold.models.info import ModelInfo
from hundredfold.runs.run import Run
from hundredfold.support.errors import UserError
from hundredfold.support.files import expanded, make_folder


def new_run(config: Config, info: ModelInfo, environment: dict[str, Any]) -> Run:
    """Create `<out>/<name>-<UTC time>-s<seed>` with what is known before the first step.

    The folder is filled under a temporary name and then renamed, so it is never incomplete.

    Raises:
        UserError: the folder cannot be created.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name, out = f"{config.name}-{stamp}-s{config.seed}", make_folder(expanded(config.out))
    temporary = out / f".{name}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
    except OSError as error:
        raise UserError(f"Cannot make a folder in {out}: {error.strerror}.") from error
    try:
        Run(temporary).start(config, info, environment)
        return Run(_rename(temporary, name))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _rename(temporary: Path, name: str) -> Path:
    """Rename a folder, adding a number to the name if it is taken; return the new path."""
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = temporary.with_name(name + suffix)
        if not path.exists():
            with suppress(OSError):  # another process may have been faster
                return temporary.rename(path)
    raise UserError(f"There are already a hundred runs named {name} in {temporary.parent}.")


def copy_model(
    run: Run,
    folder: Path,
    config: Config,
    weights: Mapping[str, Tensor] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Run:
    """Write the files of a finished run that prediction needs to another folder, as a run.

    Args:
        run: the run; the copy takes over its model and its metrics.
        folder: an existing folder.
        config: the configuration that the copy records.
        weights: replace the run's own weights.
        environment: the environment that the copy records; None records none.

    Raises:
        UserError: the run is unfinished or damaged, or the folder cannot be written.
    """
    copy, metrics, info = Run(folder), run.metrics(), run.info()
    copy.start(config, info, environment)
    known = None if weights else run.known_tensors() or None  # made for the run's own weights
    copy.finish(weights or run.weights(), info, metrics, known=known)
    return copy
