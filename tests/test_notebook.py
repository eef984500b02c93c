"""The tutorial notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
@pytest.mark.long
def test_the_notebook_runs_on_the_sample(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert '"cifar100", 2.0' in first.source
    first.source = first.source.replace('"cifar100", 2.0', '"sample", 0.1')
    for cell in notebook.cells:
        cell.source = cell.source.replace("hf.fast(", "hf.fast(widths=(8, 16, 16), ")
        cell.source = cell.source.replace("data=data, out=out)", "data=data, out=out, epochs=6.0)")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 5
    assert "again to the last digit" in outputs[-1]["text"]


def test_the_notebook_is_kept_with_its_pictures() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [out for cell in cells for out in cell.outputs]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 5
    assert not any(out.output_type == "error" for out in outputs)
