"""The training loop: against a plain reference, reproducible, and what it writes."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.making import make_split, update_digests
from torch import Tensor, nn

from hundredfold import (
    Config,
    Dataset,
    UserError,
    evaluate,
    load_sample,
    train,
    tutorial,
)
from hundredfold.data.dataset import Split
from hundredfold.models.build import count_parameters
from hundredfold.support.device import memory_format, pick_device
from hundredfold.training.batches import batches
from hundredfold.training.loop import Step, epochs, step, training, training_size
from hundredfold.training.setup import make_setup, uses_bfloat16
from hundredfold.training.state import first_state


class Reference(nn.Module):
    """The tutorial's network, written out plainly."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def block(i: int, o: int, pool: bool = False) -> nn.Sequential:
            layers = [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
            return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))

        self.conv1, self.conv2 = block(3, 64), block(64, 128, pool=True)
        self.res1 = nn.Sequential(block(128, 128), block(128, 128))
        self.conv3, self.conv4 = block(128, 256, pool=True), block(256, 512, pool=True)
        self.res2 = nn.Sequential(block(512, 512), block(512, 512))
        self.head = nn.Sequential(
            nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.conv2(self.conv1(x))
        x = self.res1(x) + x
        x = self.conv4(self.conv3(x))
        x = self.res2(x) + x
        return self.head(x)


@pytest.fixture
def double() -> Iterator[None]:
    """Compute in float64 where nothing else is said."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.long
def test_the_tutorials_first_20_losses_equal_a_plain_reference() -> None:
    """Same batches, first weights and dropout; torch's own scheduler, optimizer and clipping.

    In float64: Adam turns gradients that are zero but for rounding into full steps, so that in
    float32 any other order of summation drifts off. Batches of 2 keep it short.
    """
    sample = load_sample().with_labels("coarse")
    dataset = dataclasses.replace(sample, train=sample.train[:2400:60])
    config = tutorial(batch_size=2, epochs=313)  # 313 times 20 steps: as many as the real run has
    setup = make_setup(config, dataset, torch.device("cpu"))
    setup = dataclasses.replace(setup, judged=sample.test[:0])
    state = first_state(setup)
    model = Reference(20)
    model.load_state_dict(state.model.state_dict())

    generator = torch.get_rng_state()
    ours = next(epochs(state, setup))

    torch.set_rng_state(generator)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=313 * 20)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (setup.info.mean, setup.info.std))
    losses = []
    for images, labels in batches(setup.training, 0, config, setup.device):
        loss = F.cross_entropy(model((images / 255 - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert len(losses) == 20
    np.testing.assert_allclose(ours.loss, losses, atol=1e-4, rtol=0)


def test_training_learns_and_writes_its_run(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, epochs=12, lr=0.5), tiny, quiet=True)
    names = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    assert names == {
        "config.json",
        "environment.json",
        "model.json",
        "weights.safetensors",
        "history.jsonl",
        "metrics.json",
        "test_logits.npz",
        "figures/curves.png",
    }
    assert run.finished
    assert run.config() == dataclasses.replace(tiny_config, epochs=12, lr=0.5, data="tiny")
    assert [epoch.epoch for epoch in run.history()] == list(range(1, 13))
    assert all(
        len(epoch.lr) == len(epoch.loss) == 5 for epoch in run.history()
    )  # 72 of 96 pictures
    assert run.history()[-1].train_loss < run.history()[0].train_loss
    assert run.metrics()["test"]["fine_top1"] > 0.7
    assert run.metrics()["test_pictures"] == 24
    assert run.environment()["data_sha256"] == tiny.digest()


def test_recorded_logits_give_the_recorded_metrics(tiny: Dataset, tiny_config: Config) -> None:
    run = train(tiny_config, tiny, quiet=True)
    stored = np.load(run.path / "test_logits.npz", allow_pickle=False)
    assert stored["labels"].tolist() == tiny.test.labels.tolist()
    for view, key in (("test", "logits"), ("test_flip", "flip_logits")):
        right = (stored[key].argmax(1) == stored["labels"]).mean()
        assert run.metrics()[view]["fine_top1"] == pytest.approx(right)


def test_evaluate_repeats_the_numbers_to_the_last_digit(tmp_path: Path) -> None:
    config = Config(data="sample", widths=(8, 8), epochs=1, out=str(tmp_path), device="cpu")
    run = train(config, quiet=True)
    metrics = evaluate(run.path)
    assert metrics["test"] == run.metrics()["test"]
    assert metrics["test_flip"] == run.metrics()["test_flip"]
    with pytest.raises(UserError, match=r"is not the data that .* was trained on"):
        environment = json.loads((run.path / "environment.json").read_text())
        environment["data_sha256"] = "0"
        (run.path / "environment.json").write_text(json.dumps(environment))
        update_digests(run)
        evaluate(run)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "sizes": (24, 32), "epochs": 1.5}])
def test_the_same_seed_gives_the_same_bits(
    changes: dict[str, Any], tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, **changes)
    torch.rand(5)  # the global generator has no say
    first = train(config, tiny, quiet=True)
    before = torch.get_rng_state()
    second = train(config, tiny, quiet=True)
    assert torch.get_rng_state().equal(before)  # and is left alone
    other = train(dataclasses.replace(config, seed=1), tiny, quiet=True)
    blobs = [(run.path / "weights.safetensors").read_bytes() for run in (first, second, other)]
    assert blobs[0] == blobs[1] != blobs[2]
    assert [e.loss for e in first.history()] == [e.loss for e in second.history()]
    assert len({run.path for run in (first, second, other)}) == 3


def test_dropout_is_reproducible_too(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, model="resnet9", widths=(4, 4, 8, 8))
    runs = [train(config, tiny, quiet=True) for _ in range(2)]
    assert runs[0].history()[-1].loss == runs[1].history()[-1].loss


def test_validation_size_0_trains_on_everything(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, validation=0.0, epochs=1), tiny, quiet=True)
    assert run.history()[0].validation == {}
    assert len(run.history()[0].loss) == 6
    assert run.metrics()["validated_on"] is None


def test_the_tutorials_way_judges_on_the_test_set(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, validate_on="test", validation=0.0, epochs=1)
    run = train(config, tiny, quiet=True)
    assert run.history()[-1].validation == run.metrics()["test"]
    assert run.metrics()["validated_on"] == "test"


def test_coarse_labels_train_a_coarse_model(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, labels="coarse"), tiny, quiet=True)
    assert run.info().classes == ("low", "high")
    right = run.test_logits()["logits"].argmax(1) == tiny.with_labels("coarse").test.labels
    assert run.metrics()["test"]["coarse_top1"] == pytest.approx(right.double().mean().item())
    for metrics in (
        run.metrics()["test"],
        run.metrics()["test_flip"],
        run.history()[-1].validation,
    ):
        assert metrics.keys() == {"loss", "coarse_top1", "macro_recall", "macro_f1", "ece"}


def test_a_loss_that_is_not_finite_stops_with_advice(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, lr=1e30, epochs=3)
    with pytest.raises(UserError, match=r"no longer finite in epoch .*lower --lr"):
        train(config, tiny, quiet=True)


def test_autocast_trains_too(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, precision="bfloat16")
    exact = train(tiny_config, tiny, quiet=True)
    mixed = train(config, tiny, quiet=True)
    assert mixed.history()[0].loss != exact.history()[0].loss
    np.testing.assert_allclose(mixed.history()[0].loss[0], exact.history()[0].loss[0], rtol=0.02)


def test_sizes_share_the_steps_equally() -> None:
    sizes = (20, 24, 32)
    assert [training_size(sizes, step / 7) for step in range(7)] == [20, 20, 20, 24, 24, 32, 32]


def test_sizes_are_in_proportion_to_the_full_one(tiny: Dataset, tiny_config: Config) -> None:
    for sizes, want in (
        ((), (32,)),
        ((24, 32), (24, 32)),
        ((16, 24), (22, 32)),
        ((16, 64), (8, 32)),
    ):
        config = dataclasses.replace(tiny_config, sizes=sizes)
        assert make_setup(config, tiny, torch.device("cpu")).sizes == want


def test_a_mistake_leaves_no_run_behind(tiny: Dataset, tiny_config: Config) -> None:
    for changes in ({"widths": (8,) * 9}, {"size": 64}):
        with pytest.raises(UserError):
            train(dataclasses.replace(tiny_config, **changes), tiny, quiet=True)
    assert not Path(tiny_config.out).exists()


def test_devices_are_picked_and_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "abacus", "xpu"):
        with pytest.raises(UserError, match=f"--device {name} is"):
            pick_device(name)
    assert not uses_bfloat16(Config(), torch.device("cpu"))
    assert memory_format(torch.device("cpu")) is torch.channels_last
    assert memory_format(torch.device("mps")) is torch.contiguous_format


PAGES = """
import resource, torch
from hundredfold.support.device import keep_memory
def faults():
    for number in range(13):
        if number == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
without = faults()
keep_memory()
print(without, faults())
"""
"""Prints how often ten tensors of 64 MiB, one after the other, met a page that was not there."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_kept_memory_is_used_again_without_new_pages() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.check_output([sys.executable, "-c", PAGES], env=others)
    without, kept = map(int, output.split())
    assert kept < without / 2


def test_two_pictures_train_a_step(tiny_config: Config) -> None:
    two = Dataset(source="two", train=make_split(2, 2), test=make_split(1, 1), classes=("a", "b"))
    run = train(dataclasses.replace(tiny_config, epochs=1), two, quiet=True)
    assert len(run.history()[0].loss) == 1
    assert "coarse_top1" not in run.metrics()["test"]
    assert "fine_top5" not in run.metrics()["test"]
    one = dataclasses.replace(two, train=Split(two.train.images[:1], two.train.labels[:1]))
    with pytest.raises(UserError, match="at least 2 pictures"):
        train(tiny_config, one, quiet=True)


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, [2]), (0.01, [1]), (2.4, [5, 5, 2])])
def test_a_run_may_end_within_an_epoch(
    epochs: float, steps: list[int], tiny: Dataset, tiny_config: Config
) -> None:
    run = train(dataclasses.replace(tiny_config, epochs=epochs), tiny, quiet=True)
    assert [len(epoch.loss) for epoch in run.history()] == steps
    assert run.history()[-1].pictures == min(16 * steps[-1], 72)
    assert run.history()[-1].progress == 1
    assert run.finished


def test_every_step_is_told_and_the_state_is_whole(tiny: Dataset, tiny_config: Config) -> None:
    setup = make_setup(tiny_config, tiny, torch.device("cpu"))
    state = first_state(setup)
    seen, records = [], []
    for event in training(state, setup):
        if isinstance(event, Step):
            seen.append((event.pictures, event.lr, state.progress))
        else:
            records.append(event)
    assert [pictures for pictures, _, _ in seen] == [16, 16, 16, 16, 8] * 2
    assert [lr for _, lr, _ in seen] == [lr for record in records for lr in record.lr]
    assert [done for _, _, done in seen] == pytest.approx([n / 10 for n in range(1, 11)])
    assert count_parameters(state.model) > 0


def test_lookahead_goes_back_to_the_slow_weights(tiny: Dataset, tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, lookahead=0.8, epochs=1.5)  # 8 steps
    setup = make_setup(config, tiny, torch.device("cpu"))
    state, plain = first_state(setup), first_state(dataclasses.replace(setup, config=tiny_config))
    slow = {name: value.clone() for name, value in state.slow.items()}
    assert not plain.slow
    steps = (event for event in training(state, setup) if isinstance(event, Step))
    for number, _ in enumerate(steps, 1):
        for images, labels in islice(
            batches(setup.training, (number - 1) // 5, config, setup.device, (number - 1) % 5), 1
        ):
            plain.progress = (number - 1) / 8
            plain.step = number - 1
            step(plain, dataclasses.replace(setup, config=config), images, labels)
        if number in (5, 8):  # every fifth step, and the last
            keep = 0.8**5 * (number / 8) ** 3
            for name, value in plain.model.state_dict().items():
                if name in slow:
                    slow[name] = keep * slow[name] + (1 - keep) * value
                    value.copy_(slow[name])
        for name, value in state.model.state_dict().items():
            torch.testing.assert_close(value, plain.model.state_dict()[name])
