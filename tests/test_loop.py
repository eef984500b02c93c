"""The training loop: compared with plain references, step by step."""

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hundredfold import Config, Dataset, UserError, fast, load_sample, tutorial
from hundredfold.models.build import build_model, count_parameters
from hundredfold.training.batches import batches
from hundredfold.training.loop import (
    StepRecord,
    gradients,
    total_weight,
    train_epochs,
    train_events,
    train_step,
    training_loss,
    training_size,
)
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


class Reference(nn.Module):
    """The tutorial's network, written with torch's own layers."""

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
    """Make float64 the default data type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.long
def test_the_tutorials_first_20_losses_equal_a_plain_reference() -> None:
    """Compare with torch's own scheduler, optimizer and clipping, on the same batches.

    The first weights and the dropout are the same as well. The data type is float64: Adam turns
    gradients that are zero except for rounding into full steps, so in float32 another order of
    summation leads to other losses. Batches of 2 keep the test short.
    """
    sample = load_sample().with_labels("coarse")
    dataset = dataclasses.replace(sample, train=sample.train[:2400:60])
    config = tutorial(
        batch_size=2, epochs=313, precision="float32"
    )  # 313 times 20 steps, as in the real run
    setup = make_setup(config, dataset, torch.device("cpu"))
    setup = dataclasses.replace(setup, validation_split=sample.test[:0])
    state = first_state(setup)
    model = Reference(20)
    model.load_state_dict(state.model.state_dict())

    generator = torch.get_rng_state()
    ours = next(train_epochs(state, setup))

    torch.set_rng_state(generator)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=313 * 20)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (setup.info.mean, setup.info.std))
    losses = []
    for images, labels in batches(setup, 0):
        loss = F.cross_entropy(model((images / 255 - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert len(losses) == 20
    np.testing.assert_allclose(ours.loss, losses, atol=1e-4, rtol=0)


def one_hot(images: Tensor, labels: Tensor, _: object) -> tuple[Tensor, Tensor]:
    """Return a batch with its labels as probabilities, in place of an augmentation."""
    return images, F.one_hot(labels, 6).float()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"balance": "loss", "label_smoothing": 0.2},
        {"precision": "bfloat16", "optimizer": "sgd", "label_smoothing": 0.1},
    ],
)
def test_one_hot_probabilities_train_as_their_labels_do(
    changes: dict[str, Any], tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven = dataclasses.replace(tiny, train=tiny.train[:70])
    config = dataclasses.replace(tiny_config, pad=0, flip="none", epochs=1.0, **changes)
    setup = make_setup(config, uneven, torch.device("cpu"))
    hard = next(train_epochs(first_state(setup), setup))
    monkeypatch.setattr("hundredfold.training.batches.augment", one_hot)
    _, labels = next(batches(setup, 0))
    assert labels.shape == (16, 6)
    soft = next(train_epochs(first_state(setup), setup))
    assert len(soft.loss) >= 4
    np.testing.assert_allclose(soft.loss, hard.loss, rtol=1e-3 if setup.mixed else 1e-5)
    assert soft.validation["loss"] == pytest.approx(hard.validation["loss"], rel=1e-2)


def test_the_loss_of_mixed_labels_is_the_weighted_mean_over_both() -> None:
    logits, weights = torch.randn(8, 3), torch.tensor([0.5, 1.0, 2.0])
    first, second = torch.randint(0, 3, (2, 8), generator=torch.Generator().manual_seed(0))
    mixed = 0.3 * F.one_hot(first, 3).float() + 0.7 * F.one_hot(second, 3).float()
    for smoothing in (0.0, 0.2):
        sums = [
            training_loss(logits, labels, weights, smoothing) * total_weight(labels, weights)
            for labels in (first, second)
        ]
        want = (0.3 * sums[0] + 0.7 * sums[1]) / total_weight(mixed, weights)
        torch.testing.assert_close(training_loss(logits, mixed, weights, smoothing), want)
    assert total_weight(mixed, None) == total_weight(first, None) == 8


def test_all_sizes_have_the_same_number_of_steps() -> None:
    sizes = (20, 24, 32)
    assert [training_size(sizes, step / 7) for step in range(7)] == [20, 20, 20, 24, 24, 32, 32]


def test_sizes_are_scaled_to_the_full_size(tiny: Dataset, tiny_config: Config) -> None:
    for sizes, want in (
        ((), (32,)),
        ((24, 32), (24, 32)),
        ((16, 24), (22, 32)),
        ((16, 64), (8, 32)),
    ):
        config = dataclasses.replace(tiny_config, model="resnet9", widths=(), sizes=sizes)
        assert make_setup(config, tiny, torch.device("cpu")).sizes == want


def test_sizes_too_small_for_the_network_are_refused(tiny: Dataset) -> None:
    config = fast(sizes=(16, 48), device="cpu")
    with pytest.raises(UserError, match=r"--sizes 16 48 begins with pictures of 10 px, because"):
        make_setup(config, tiny, torch.device("cpu"))
    with pytest.raises(UserError, match=r"begins with pictures of 0 px"):
        make_setup(dataclasses.replace(config, sizes=(16, 1100)), tiny, torch.device("cpu"))
    large = dataclasses.replace(config, size=224, sizes=(32, 224))
    with pytest.raises(UserError, match=r"--sizes 32 224 begins with pictures of 32 px"):
        make_setup(large, tiny, torch.device("cpu"))
    for size, least in ((224, 112), (128, 64), (96, 48)):
        setup = make_setup(
            dataclasses.replace(config, size=size, sizes=(least, size)), tiny, torch.device("cpu")
        )
        model = build_model(setup.info)
        assert model(torch.zeros(2, 3, least, least)).shape == (2, len(tiny.classes))


def test_every_step_is_reported(tiny: Dataset, tiny_config: Config) -> None:
    setup = make_setup(tiny_config, tiny, torch.device("cpu"))
    state = first_state(setup)
    seen, records = [], []
    for event in train_events(state, setup):
        if isinstance(event, StepRecord):
            seen.append((event.pictures, event.lr, state.progress))
        else:
            records.append(event)
    assert [pictures for pictures, _, _ in seen] == [16, 16, 16, 16, 8] * 2
    assert [lr for _, lr, _ in seen] == [lr for record in records for lr in record.lr]
    assert [done for _, _, done in seen] == pytest.approx([n / 10 for n in range(1, 11)])
    assert count_parameters(state.model) > 0


def test_lookahead_averages_every_fifth_step_and_the_last(
    tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, lookahead=0.8, epochs=1.5)  # 8 steps
    setup = make_setup(config, tiny, torch.device("cpu"))
    state, plain = first_state(setup), first_state(dataclasses.replace(setup, config=tiny_config))
    slow = {name: value.clone() for name, value in state.slow.items()}
    assert not plain.slow
    steps = (event for event in train_events(state, setup) if isinstance(event, StepRecord))
    for number, _ in enumerate(steps, 1):
        for images, labels in islice(batches(setup, (number - 1) // 5, (number - 1) % 5), 1):
            plain.progress = (number - 1) / 8
            plain.steps_done = number - 1
            train_step(plain, setup, images, labels)
        if number in (5, 8):
            keep = 0.8**5 * (number / 8) ** 3
            for name, value in plain.model.state_dict().items():
                if name in slow:
                    slow[name] = keep * slow[name] + (1 - keep) * value
                    value.copy_(slow[name])
        for name, value in state.model.state_dict().items():
            torch.testing.assert_close(value, plain.model.state_dict()[name])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("balance", ["none", "loss", "sampling"])
def test_accumulated_gradients_are_those_of_the_whole_batch(balance: Any) -> None:
    """51 pictures in parts of at most 8, which are not all of the same size or weight."""
    sample = load_sample()
    few = dataclasses.replace(sample, train=sample.train[:1003])
    config = Config(
        widths=(8, 16),
        batch_size=51,
        epochs=1,
        optimizer="sgd",
        batch_norm=False,
        balance=balance,
        precision="float32",
    )
    whole = make_setup(config, few, torch.device("cpu"))
    parts = make_setup(dataclasses.replace(config, micro_batch=8), few, torch.device("cpu"))
    images, labels = next(iter(batches(whole, 0)))
    states = [first_state(setup) for setup in (whole, parts)]
    losses = [
        gradients(state, setup, images, labels)
        for state, setup in zip(states, (whole, parts), strict=True)
    ]
    assert losses[0].allclose(losses[1], rtol=1e-12)
    pairs = zip(*(state.model.parameters() for state in states), strict=True)
    compared = [(a.grad, b.grad) for a, b in pairs if a.requires_grad]
    assert len(compared) > 5
    for a, b in compared:
        assert a is not None and b is not None
        assert a.allclose(b, rtol=1e-9, atol=1e-12)
