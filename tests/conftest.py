"""Shared fixtures: small data, the official data where it is at hand, an empty cache."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright
from support.making import Load, Train, make_config, make_tiny

from hundredfold import Config, Dataset, Run, load_cifar100, load_data, train
from hundredfold.data import cifar100
from hundredfold.data.load import DATA_VARIABLE

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores, and so do the processes they start
    os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("patient", deadline=None)  # a busy machine is no fault
settings.load_profile("patient")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FONTS = Path(matplotlib.get_cachedir())
DATA = Path(os.environ[DATA_VARIABLE]).resolve() if DATA_VARIABLE in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones, lest one worker has them left when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test reads the user's data or cache, or writes outside its own folder."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLCONFIGDIR", str(FONTS))  # each cache its own list of fonts: 0.7 s each
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture(scope="session")
def official() -> Path:
    """The official archive of CIFAR-100."""
    found = cifar100.find(DATA) if DATA else None
    if found is None or found.is_dir():
        pytest.skip(f"{DATA_VARIABLE} names no {cifar100.ARCHIVE}")
    return found


@pytest.fixture(scope="session")
def cifar(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The official CIFAR-100."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_cifar100(official)


@pytest.fixture
def tiny() -> Dataset:
    return make_tiny()


@pytest.fixture
def tiny_config(tmp_path: Path) -> Config:
    return make_config(tmp_path / "runs")


@pytest.fixture(scope="session")
def run_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `tiny`, for `run` to copy."""
    return train(make_config(tmp_path_factory.mktemp("runs")), make_tiny(), quiet=True).path


@pytest.fixture
def run(run_of_all: Path, tiny_config: Config) -> Run:
    """A finished run on `tiny`, to do with as one likes."""
    return Run(Path(shutil.copytree(run_of_all, Path(tiny_config.out) / run_of_all.name)))


@pytest.fixture
def trained(tiny: Dataset, tiny_config: Config) -> Train:
    """Trains on `tiny`, or other data, for an epoch with some fields changed."""

    def run(data: Dataset = tiny, **changes: Any) -> Run:
        return train(
            dataclasses.replace(tiny_config, **({"epochs": 1.0} | changes)), data, quiet=True
        )

    return run


@pytest.fixture
def said() -> list[str]:
    """What the user was told."""
    return []


@pytest.fixture
def load(said: list[str]) -> Load:
    """Loads data that a path names, and notes what the user is told."""
    return lambda path, **options: load_data(str(path), said.append, **options)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()
