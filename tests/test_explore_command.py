"""The command `explore`: what it prints and what it writes."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from support.exploring import SAMPLES, cards, headings, make_setup_of, section

from hundredfold import Config, Dataset, Split, fast
from hundredfold.cli.explore import show_facts
from hundredfold.cli.main import main
from hundredfold.experiments.explore import choose_pictures, explore, training_split
from hundredfold.support.errors import UserError


def test_the_command_on_the_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "sample", "--recipe", "tutorial", "--out", "seen"]) == 0
    out = capsys.readouterr().out
    for row in (
        r"pictures +2,500 +500",
        r"size in pixels +32 x 32 +32 x 32",
        r"classes +100 +100",
        r"superclasses +20 +20",
        r"pictures per class: min / median / max +25 / 25 / 25 +5 / 5 / 5",
        r"Page +seen/explore.html",
    ):
        assert re.search(row, out), row
    assert "Every class has 25 training pictures and 5 test pictures" in out
    assert [path.name for path in Path("seen").iterdir()] == ["explore.html"]
    assert Path("seen/explore.html").stat().st_size < 5e6


def test_pictures_are_those_that_the_recipe_trains_on(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(root), "--recipe", "finetune"]) == 0
    assert re.search(r"size in pixels +224 x 224", capsys.readouterr().out)


def test_a_key_in_an_address_is_not_shown(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataclasses.replace(tiny, source="https://host/pets.zip?key=secret")
    show_facts(data)
    page = explore(data, tiny_config, "seen").read_text()
    for text in (page, capsys.readouterr().out):
        assert "https://host/pets.zip" in text and "secret" not in text


def test_the_table_has_the_channels_of_a_loop(
    tiny: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    show_facts(tiny)
    text = capsys.readouterr().out
    for name, split in (("mean", tiny.train), ("std", tiny.test)):
        values = []
        for channel in range(3):
            pixels = [int(v) / 255 for v in split.images[:, channel].flatten()]
            mean = math.fsum(pixels) / len(pixels)
            square = math.fsum((v - mean) ** 2 for v in pixels) / len(pixels)
            values.append(mean if name == "mean" else math.sqrt(square))
        assert ", ".join(f"{value:.4f}" for value in values) in text


def test_cifar100_has_the_published_statistics_and_equal_counts(
    cifar: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    show_facts(cifar)
    text = capsys.readouterr().out
    for facts in ("500 / 500 / 500", "0.5071, 0.4865, 0.4409", "0.2673, 0.2564, 0.2762"):
        assert facts in text
    path = explore(cifar, fast(), "out")
    assert len(headings(path)) == 3
    shown = dict(cards(section(path, SAMPLES)))
    training = training_split(make_setup_of(cifar, fast()), cifar)
    for label in (0, 51, 99):
        (places,) = choose_pictures(Split(training.images, training.labels), [label])
        assert torch.equal(shown[cifar.classes[label]][0], training.images[places[0]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("explore nowhere", "There is no file or folder nowhere"),
        ("explore sample --recipe fsat", "no recipe 'fsat'.*Did you mean fast"),
        ("explore sample --out taken/here", "Cannot create the folder taken/here: Not a directory"),
    ],
)
def test_mistakes_are_explained(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("")
    assert main(arguments.split()) == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_recipe_that_does_not_fit_the_pictures_is_refused(tiny: Dataset) -> None:
    large = Split(torch.zeros(6, 3, 48, 48, dtype=torch.uint8), tiny.train.labels[:6])
    with pytest.raises(UserError, match="--size is 32, but the pictures have 48"):
        explore(dataclasses.replace(tiny, train=large), fast(size=32), "out")
