"""Shared fixtures: small data, the official data if it is available, and an empty cache."""

import dataclasses
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, expect, sync_playwright
from support.making import Load, Train, make_config, make_tiny
from support.pets import RNG, START, pictures

from hundredfold import Config, Dataset, Run, load_cifar100, load_data, train
from hundredfold.data import cifar100
from hundredfold.data.load import DATA_VARIABLE

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers and the processes that they start share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
# A shell lets background jobs ignore Ctrl-C, and then the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("patient", deadline=None)  # a busy machine is not a failure
settings.load_profile("patient")
expect.set_options(timeout=60_000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FONTS = Path(matplotlib.get_cachedir())
DATA = Path(os.environ[DATA_VARIABLE]).resolve() if DATA_VARIABLE in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tests first, so that no worker is left with one when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep tests from reading the user's data and cache, and from writing outside their folder."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "MPLCONFIGDIR", str(FONTS)
    )  # share the list of fonts, which takes 0.7 s to make
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture(autouse=True)
def same_pixels() -> None:
    """Give each test the same random pixels, whichever tests ran before it."""
    RNG.bit_generator.state = START


@pytest.fixture(scope="session")
def official() -> Path:
    """The official archive of CIFAR-100."""
    path = cifar100.find_official(DATA) if DATA else None
    if path is None or path.is_dir():
        pytest.skip(f"{DATA_VARIABLE} is not the path of {cifar100.ARCHIVE}")
    return path


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
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `tiny` that `run` copies."""
    return train(make_config(tmp_path_factory.mktemp("runs")), make_tiny(), quiet=True).path


@pytest.fixture
def run(shared_run: Path, tiny_config: Config) -> Run:
    """A finished run on `tiny` that the test may change."""
    return Run(Path(shutil.copytree(shared_run, Path(tiny_config.out) / shared_run.name)))


@pytest.fixture
def trained(tiny: Dataset, tiny_config: Config) -> Train:
    """A function that trains on `tiny` or other data for an epoch, with some fields changed."""

    def run(data: Dataset = tiny, **changes: Any) -> Run:
        return train(
            dataclasses.replace(tiny_config, **({"epochs": 1.0} | changes)), data, quiet=True
        )

    return run


@pytest.fixture
def said() -> list[str]:
    """The sentences that the user was shown."""
    return []


@pytest.fixture
def load(said: list[str]) -> Load:
    """A function that loads data from a path and records the sentences shown to the user."""
    return lambda path, **options: load_data(str(path), said.append, **options)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of pictures, from which the shards are made."""
    counts = {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}
    return pictures(tmp_path / "pets", counts)
