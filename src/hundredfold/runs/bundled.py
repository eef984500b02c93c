"""Trained models that come with the package."""

from importlib import resources
from pathlib import Path

from hundredfold.runs.digests import digest
from hundredfold.runs.run import METRICS, Run
from hundredfold.support.files import cache_folder, expanded, make_folder, save_file

BUNDLED = ("strong",)
"""Their names; tools/make_weights.py makes them from runs."""
BY_DEFAULT = f"No run was named, so `{BUNDLED[0]}` answers, the model that comes with hundredfold."
"""What to say where it answers unasked."""


def is_bundled(run: Run) -> bool:
    """Return whether a run is a bundled model."""
    return run.path.parent == _folder()


def _folder() -> Path:
    return cache_folder() / "models"


def find_run(name: Run | str | Path) -> Run:
    """Return the run at a path; or of a bundled model's name, where nothing else is called so.

    A run is returned as it is.

    A bundled model is copied to the user's cache folder, as a run directory like any other; what is
    damaged there is copied again.

    Raises:
        UserError: the cache folder cannot be written.
    """
    if isinstance(name, Run):
        return name
    path = expanded(name)
    if str(name) not in BUNDLED or path.exists():
        return Run(path)
    source = Path(str(resources.files("hundredfold") / "weights" / str(name)))
    mark = digest((source / METRICS).read_bytes())[:12]  # which has the digests of the others
    target = make_folder(_folder() / f"{name}-{mark}")
    for path in source.iterdir():
        content, copy = path.read_bytes(), target / path.name
        if not copy.is_file() or copy.read_bytes() != content:
            save_file(copy, content)
    return Run(target)
