"""Trainings with compiled code and without."""

import dataclasses
from pathlib import Path

import pytest
import torch
from support.making import Notes

from hundredfold import Config, Dataset, evaluate, train
from hundredfold.support import native
from hundredfold.training.resume import reproduce


def fitting(tiny_config: Config) -> Config:
    """Return a configuration whose network has enough channels for compiled convolutions."""
    return dataclasses.replace(tiny_config, widths=(16, 16), sizes=(), precision="float32")


@pytest.mark.parametrize("compiled", [False, True])
def test_each_way_gives_the_same_bits_again_and_says_which_it_is(
    compiled: bool, tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled and not native.available():
        pytest.skip("winograd.cpp is not compiled")
    monkeypatch.setattr(native, "available", lambda: compiled)
    display = Notes()
    run = train(fitting(tiny_config), tiny, display=display)
    assert any("convolutions not compiled (slower)" in line for line in display.lines) != compiled
    assert run.environment()["convolutions"] == ("compiled" if compiled else "torch")
    assert evaluate(run, tiny)["test"] == run.metrics()["test"]
    assert all(part.difference == "" for part in reproduce(run, tiny))


@pytest.mark.skipif(not native.available(), reason="winograd.cpp is not compiled")
def test_both_ways_train_nearly_the_same_network(
    tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for compiled in (True, False):
        monkeypatch.setattr(native, "available", lambda compiled=compiled: compiled)
        run = train(fitting(tiny_config), tiny, quiet=True)
        losses.append(torch.tensor([loss for epoch in run.history() for loss in epoch.loss]))
    assert not losses[0].equal(losses[1])
    torch.testing.assert_close(losses[0][:2], losses[1][:2], rtol=1e-4, atol=1e-4)


def test_a_missing_or_foreign_library_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (None, b"not a library"):
        path = tmp_path / "libwinograd.so"
        if content:
            path.write_bytes(content)
        monkeypatch.setattr(native, "LIBRARY", path)
        native.available.cache_clear()
        native.library.cache_clear()
        assert not native.available()
    monkeypatch.undo()
    native.available.cache_clear()
    native.library.cache_clear()
