"""Imports point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import hundredfold

ROOT = Path(hundredfold.__file__).parent
LAYERS = [  # each may import from the ones above it, and no other
    {"support"},
    {"pictures", "metrics"},
    {"models"},
    {"config"},
    {"augment", "recipes"},
    {"data", "runs"},
    {"inference", "figures", "track"},
    {"evaluation"},
    {"training", "report", "export", "app"},
    {"audit", "experiments"},
    {"teach"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def imported(path: Path) -> set[str]:
    """Return the first part below `hundredfold` of every import in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    ours = (name.split(".") for name in names if name.split(".")[0] == "hundredfold")
    return {parts[1] if len(parts) > 1 else "__init__" for parts in ours}


def test_every_folder_has_a_layer_and_imports_only_from_above() -> None:
    for path in ROOT.rglob("*.py"):
        module = path.relative_to(ROOT).with_suffix("").parts[0]
        for other in imported(path):
            if other != module:
                assert LEVEL[other] < LEVEL[module], f"{module} must not import {other}"


def test_predicting_needs_neither_training_nor_data() -> None:
    for name in ("inference", "metrics", "models", "augment", "runs", "pictures"):
        path = ROOT / f"{name}.py"
        for file in [path] if path.exists() else (ROOT / name).rglob("*.py"):
            assert not imported(file) & {"training", "data", "cli"}


def test_the_package_and_predict_load_without_matplotlib() -> None:
    code = "import hundredfold.cli.predict, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
