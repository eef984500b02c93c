"""Trained models that come with the package."""

from importlib import resources
from pathlib import Path

from hundredfold.runs.digests import digest
from hundredfold.runs.run import METRICS_FILE, Run
from hundredfold.support.files import cache_folder, expanded, make_folder, save_file

BUNDLED = ("strong",)
"""Names of the bundled models. tools/make_weights.py makes them from runs."""
BY_DEFAULT = f"No run was named, so `{BUNDLED[0]}`, the model that comes with hundredfold, is used."
"""Sentence for the user who named no model."""


def is_bundled(run: Run) -> bool:
    """Return whether a run is a bundled model."""
    return run.path.parent == _folder()


def _folder() -> Path:
    return cache_folder() / "models"


def find_run(name: Run | str | Path) -> Run:
    """Return the run at a path, or the bundled model of that name if there is no such path.

    A run is returned unchanged. A bundled model is copied to the user's cache folder as an ordinary
    run directory; files that are damaged there are copied again.

    Raises:
        UserError: the cache folder cannot be written.
    """
    if isinstance(name, Run):
        return name
    path = expanded(name)
    if str(name) not in BUNDLED or path.exists():
        return Run(path)
    source = Path(str(resources.files("hundredfold") / "weights" / str(name)))
    mark = digest((source / METRICS_FILE).read_bytes())[:12]  # it has the other files' digests
    target = make_folder(_folder() / f"{name}-{mark}")
    for path in source.iterdir():
        content, copy = path.read_bytes(), target / path.name
        if not copy.is_file() or copy.read_bytes() != content:
            save_file(copy, content)
    return Run(target)
