"""Every public function shows a call in its docstring, and the example runs."""

import doctest
import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import hundredfold
from hundredfold import Run, load_sample, quick, recipes, train
from hundredfold.app.served_model import make_served_model
from hundredfold.experiments.tune import search_space
from hundredfold.pictures.load import to_image
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

LIBRARY = (Path(__file__).parent.parent / "docs" / "library.md").read_text()
DOCUMENTED = re.findall(r"^::: (\S+)$", LIBRARY, re.MULTILINE)


def find(path: str) -> Any:
    """Return the object that docs/library.md names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


RECIPES = [f"hundredfold.recipes.{name}" for name in recipes.__all__]
EXAMPLES = {path: find(path) for path in [*DOCUMENTED, *RECIPES] if path != "hundredfold.recipes"}
HELPERS = {
    found.__name__: found for found in (first_state, make_served_model, make_setup, search_space)
}
"""Functions that examples of other functions call."""
FUNCTIONS = [path for path, found in EXAMPLES.items() if inspect.isfunction(found)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the sample."""
    out = tmp_path_factory.mktemp("runs")
    return train(quick(data="sample", epochs=0.2, out=str(out), device="cpu"), quiet=True).path


def test_the_library_page_names_every_public_function() -> None:
    documented = {found.__name__ for found in EXAMPLES.values()}
    assert set(hundredfold.__all__) <= documented


@pytest.mark.long
@pytest.mark.parametrize("path", EXAMPLES)
def test_the_example_of_a_docstring_runs(path: str, finished: Path) -> None:
    run = Run(Path(shutil.copytree(finished, Path("runs") / finished.name)))
    to_image(load_sample().test_picture(0)[0]).save("cat.jpg")
    module = importlib.import_module(path.rpartition(".")[0])
    names = {**vars(hundredfold), **vars(module), "torch": torch, "run": run, **HELPERS}
    (test,) = doctest.DocTestFinder(recurse=False).find(find(path), path, globs=names) or (None,)
    if test is None or not test.examples:
        assert path not in FUNCTIONS, f"{path} has no example"
        return
    said: list[str] = []
    assert not doctest.DocTestRunner().run(test, out=said.append).failed, "".join(said)
