"""The range test: its curve, its suggestion, and that it does not change the state."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hundredfold import Config, Dataset, UserError, fast
from hundredfold.cli.main import main
from hundredfold.experiments.lr_find import LrCurve, find_lr
from hundredfold.training.batches import batches
from hundredfold.training.loop import train_epochs
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam"}, {"model": "resnet9"}])
def test_the_state_is_not_changed(
    changes: dict[str, Any], tiny: Dataset, tiny_config: Config
) -> None:
    widths = (4, 4, 8, 8) if "model" in changes else (8, 16)  # resnet9 has dropout
    config = Config(**vars(tiny_config) | {"widths": widths} | changes)
    setup = make_setup(config, tiny, torch.device("cpu"))
    state = first_state(setup)
    next(train_epochs(state, setup))  # the optimizer has moments now
    tensors = copy.deepcopy(state.tensors)
    groups = copy.deepcopy(state.optimizer.state_dict())
    before = replace(state.checkpoint(setup), tensors={})
    find_lr(state, setup, 20)
    assert replace(state.checkpoint(setup), tensors={}) == before
    assert state.tensors.keys() == tensors.keys()  # weights, statistics, moments, generator
    for name, value in state.tensors.items():
        assert value.equal(tensors[name]), name
    assert state.optimizer.state_dict()["param_groups"] == groups["param_groups"]


def test_the_curve_equals_steps_taken_by_hand(tiny: Dataset, tiny_config: Config) -> None:
    changes: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "precision": "float32"}
    config = Config(**vars(tiny_config) | changes)
    setup = make_setup(config, tiny, torch.device("cpu"))
    curve = find_lr(first_state(setup), setup, 12)
    model = first_state(setup).model
    optimizer = torch.optim.SGD(model.parameters(), 1.0, weight_decay=config.weight_decay)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (setup.info.mean, setup.info.std))
    seen = [b for epoch in range(3) for b in batches(setup, epoch)]
    rates, smoothed, total = np.geomspace(1e-6, 10, 12), [], 0.0
    for step, (images, labels) in enumerate(seen[: len(curve.lr)]):
        loss = F.cross_entropy(model((images / 255 - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
        total = 0.9 * total + 0.1 * loss.item()
        smoothed.append(total / (1 - 0.9 ** (step + 1)))
    np.testing.assert_allclose(curve.lr, rates[: len(curve.lr)], rtol=1e-6)
    np.testing.assert_allclose(curve.loss, smoothed, rtol=1e-3)


def test_the_suggestion_is_where_the_loss_falls_most_steeply() -> None:
    rates = np.geomspace(1e-5, 1, 101)
    falling = 2 - np.tanh(3 * np.log10(rates / 1e-2))  # steepest at 0.01
    curve = LrCurve(tuple(rates), tuple(falling))
    assert curve.steepest == pytest.approx(1e-2, rel=0.05)
    assert curve.lowest == rates[-1]
    with pytest.raises(UserError, match="diverged at once"):
        _ = LrCurve((1.0, 2.0), (1.0, 9.0)).steepest


def test_there_is_no_suggestion_if_the_loss_never_falls() -> None:
    curve = LrCurve(tuple(1.1**i for i in range(20)), tuple(1 + i / 10 for i in range(20)))
    with pytest.raises(UserError, match="falls at no learning rate"):
        print(curve.steepest)


def test_it_stops_if_the_loss_diverges(tiny: Dataset, tiny_config: Config) -> None:
    config = Config(**vars(tiny_config) | {"optimizer": "sgd", "batch_norm": False})
    setup = make_setup(config, tiny, torch.device("cpu"))
    curve = find_lr(first_state(setup), setup, 60)
    assert 10 < len(curve.lr) < 60
    assert all(math.isfinite(loss) for loss in curve.loss[:-1])
    assert curve.steepest < curve.lr[-1]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", "sample", "--widths", "8", "8", "--device", "cpu", "--steps", "30"]
    assert main(["lr-find", *flags, "--batch-size", "64"]) == 0
    out = capsys.readouterr().out
    assert "The loss falls most steeply at" in out
    rates = r"train fast --lr (\S+) --muon-lr (\S+), with the other flags"
    lr, muon_lr = map(float, re.findall(rates, out)[0])
    assert muon_lr == pytest.approx(lr * fast().muon_lr / fast().lr, rel=0.02)
    with Image.open(Path("lr-find.png")) as picture:
        assert picture.size == (900, 540)
    for steps in ("-1", "1", "9"):
        assert main(["lr-find", *flags, "--steps", steps]) == 2
        assert f"--steps is {steps}, but must be at least 10" in capsys.readouterr().err
