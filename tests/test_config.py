"""The configuration: JSON round trips, refused values, recipes."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hundredfold import Config, UserError, tutorial, tutorial_400
from hundredfold.recipes import RECIPES
from hundredfold.support.jsonio import from_json, to_json
from hundredfold.support.units import parse_duration

configs = st.builds(
    Config,
    data=st.text(),
    labels=st.sampled_from(["fine", "coarse"]),
    validation=st.floats(0, 0.5),
    widths=st.lists(st.integers(1, 999), max_size=4).map(tuple),
    lr=st.floats(1e-9, 1e9),
    epochs=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31 - 1),
    sizes=st.lists(st.integers(16, 64), max_size=4).map(lambda sizes: tuple(sorted(sizes))),
)


@given(config=configs)
def test_json_round_trip(config: Config) -> None:
    assert from_json(Config, to_json(config), "config") == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_round_trip_and_carry_their_name(name: str) -> None:
    config = RECIPES[name]()
    assert config.name == name
    assert from_json(Config, to_json(config), "config") == config
    assert RECIPES[name](seed=7) == dataclasses.replace(config, seed=7)


def test_the_tutorial_recipe_has_the_values_of_the_notebook() -> None:
    config = tutorial()
    assert (config.model, config.labels, config.batch_size, config.epochs) == (
        "resnet9",
        "coarse",
        64,
        8,
    )
    assert (config.optimizer, config.lr, config.weight_decay) == ("adam", 0.01, 1e-4)
    assert (config.schedule, config.clip_value) == ("one_cycle", 0.1)
    assert (config.pad, config.flip) == (4, "random")
    assert (config.validation, config.validate_on, config.label_smoothing) == (0, "test", 0)
    assert tutorial_400() == tutorial(name="tutorial-400", batch_size=400)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr", 0.0, "--lr is 0.0, but must be above 0"),
        ("lr", float("nan"), "--lr"),
        ("epochs", 0, "--epochs is 0, but must be above 0"),
        ("budget", "5 parsecs", "--budget is '5 parsecs', but must be a time such as 90s"),
        ("budget", "0s", "--budget"),
        ("muon_lr", 0.0, "--muon-lr"),
        ("bias_lr", 0.0, "--bias-lr"),
        ("lookahead", 1.0, "--lookahead"),
        ("batch_size", 1, "--batch-size"),
        ("validation", 0.9, "--validation"),
        ("validate_on", "test", "--validation holds out pictures"),
        ("sizes", (32, 24), "from small to large"),
        ("sizes", (8, 32), "at least 16 pixels"),
        ("name", "../../etc", "--name"),
        ("momentum", 1.0, "--momentum"),
        ("warmup", 0.0, "--warmup"),
        ("seed", -1, "--seed"),
    ],
)
def test_invalid_values_are_refused(field: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Config(**{field: value})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "x is not valid JSON"),
        ("[]", "x is not a JSON object"),
        ('{"colour": 1}', "does not know: colour"),
        ('{"lr": "fast"}', "bad value for lr: 'fast'"),
        ('{"epochs": true}', "bad value for epochs"),
        ('{"widths": [1, "2"]}', "bad value for widths"),
        ('{"flip": "sometimes"}', "bad value for flip"),
    ],
)
def test_json_that_is_not_a_configuration_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        from_json(Config, text, "x")


def test_whole_numbers_in_json_become_floats() -> None:
    config = from_json(Config, '{"lr": 1}', "x")
    assert isinstance(config.lr, float)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5min", 300), ("5 m", 300), ("1.5h", 5400), ("1h30min5s", 5405)]
    + [("2.5min", 150), ("1 h 30 min", 5400), ("1h5s", 3605), ("0.5", 0.5)]
    + [(bad, 0) for bad in ("", "min", "-5s", "5d", "1,5h", "s5", "1e3")]
    + [(bad, 0) for bad in ("1.5.5h", "1h1h", "5min5min", ".", ".5h", "5.h", "30s5min", "1h30")]
    + [("9" * 400, 0)],
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
