"""Time budgets: a plan fits its budget, and a run keeps to it."""

import dataclasses
import time
from typing import Any

import pytest
import torch
from support.making import make_split

from hundredfold import Config, Dataset, UserError, train
from hundredfold.recipes import RECIPES, fast
from hundredfold.training.budget import LADDER, choose_recipe, plan_budget, seconds_by_size
from hundredfold.training.loop import train_step
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


@pytest.fixture
def dataset(tiny: Dataset) -> Dataset:
    """`tiny` with ten times its training pictures."""
    return dataclasses.replace(tiny, train=make_split(960, 6))


def test_a_plan_fills_its_budget_with_epochs(dataset: Dataset, tiny_config: Config) -> None:
    setups = []
    for budget in ("40s", "160s"):
        config = dataclasses.replace(tiny_config, budget=budget)
        started = time.perf_counter()
        setup, clock = plan_budget(
            make_setup(config, dataset, torch.device("cpu")), len(dataset.test), started
        )
        assert clock
        assert 0.5 * float(budget[:-1]) < clock.end - started < float(budget[:-1])
        assert len(clock.seconds) == 1
        assert setup.steps * clock.seconds[0] < clock.end - started
        setups.append(setup)
    assert setups[1].steps > 2 * setups[0].steps


def test_the_smaller_last_batch_is_not_measured(
    tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def recorded(*arguments: Any) -> Any:
        taken.append(len(arguments[-1]))
        return train_step(*arguments)

    monkeypatch.setattr("hundredfold.training.budget.train_step", recorded)
    few = dataclasses.replace(tiny, train=make_split(50, 6))  # batches of 16, 16, 16 and 2
    setup = make_setup(dataclasses.replace(tiny_config, validation=0.0), few, torch.device("cpu"))
    seconds_by_size(first_state(setup), setup, 60.0)
    assert taken == [16, 16, 16]


def test_the_time_of_other_sizes_follows_from_their_area(
    dataset: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, budget="60s", sizes=(16, 32))
    _, clock = plan_budget(
        make_setup(config, dataset, torch.device("cpu")), 24, time.perf_counter()
    )
    assert clock
    assert clock.seconds[1] == pytest.approx(4 * clock.seconds[0])


def test_a_budget_ends_the_schedule_whatever_epochs_says(
    dataset: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, budget="6s", epochs=1000.0)
    run = train(config, dataset, quiet=True)
    assert run.history()[-1].progress == 1
    assert run.history()[-1].lr[-1] < 0.2 * max(rate for e in run.history() for rate in e.lr)
    assert run.config().budget == "6s"


def test_a_budget_that_is_too_short_says_how_much_is_needed(
    dataset: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, budget="0.01s")
    with pytest.raises(UserError, match=r"--budget 0.01s is too short here: .* about \d+ s"):
        train(config, dataset, quiet=True)


def test_a_larger_budget_gets_a_larger_recipe(dataset: Dataset) -> None:
    assert {name for name, _ in LADDER} <= RECIPES.keys()
    assert choose_recipe(fast(budget="0.1s", device="cpu"), dataset) == "quick"
    assert choose_recipe(fast(budget="100h", device="cpu"), dataset) == "strong"
