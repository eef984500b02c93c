"""Trained models that come with the package."""

import hashlib
import shutil
import tempfile
from contextlib import suppress
from importlib import resources
from pathlib import Path

from hundredfold.files import cache_folder, expanded, make_folder
from hundredfold.run import Run

BUNDLED = ("strong",)
"""Their names; tools/make_weights.py makes them from runs."""


def is_bundled(run: Run) -> bool:
    """Return whether a run is a bundled model."""
    return run.path.parent == _folder()


def _folder() -> Path:
    return cache_folder() / "models"


def find_run(name: Run | str | Path) -> Run:
    """Return the run at a path; or of a bundled model's name, where nothing else is called so.

    A run is returned as it is.

    A bundled model is copied to the user's cache folder once, as a run directory like any other.

    Raises:
        UserError: the cache folder cannot be written.
    """
    if isinstance(name, Run):
        return name
    path = expanded(name)
    if str(name) not in BUNDLED or path.exists():
        return Run(path)
    source = Path(str(resources.files("hundredfold") / "weights" / str(name)))
    digest = hashlib.sha256((source / "weights.safetensors").read_bytes()).hexdigest()[:12]
    target = make_folder(_folder()) / f"{name}-{digest}"
    if not target.exists():
        making = Path(tempfile.mkdtemp(dir=target.parent))
        shutil.copytree(source, making, dirs_exist_ok=True)
        with suppress(OSError):  # another process may have been faster
            making.rename(target)
        shutil.rmtree(making, ignore_errors=True)
    return Run(target)
