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
from hundredfold import Run, load_sample, quick, train
from hundredfold.pictures.prepare import to_image

LIBRARY = (Path(__file__).parent.parent / "docs" / "library.md").read_text()
DOCUMENTED = re.findall(r"^::: (\S+)$", LIBRARY, re.MULTILINE)


def find(path: str) -> Any:
    """Return the object that docs/library.md names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


EXAMPLES = {path: find(path) for path in DOCUMENTED}
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
    names = {**vars(hundredfold), "torch": torch, "run": run, path.rpartition(".")[2]: find(path)}
    (test,) = doctest.DocTestFinder(recurse=False).find(find(path), path, globs=names) or (None,)
    if test is None or not test.examples:
        assert path not in FUNCTIONS, f"{path} has no example"
        return
    said: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=said.append)
    assert (failed, tried) == (0, len(test.examples)), "".join(said)
