"""The model that comes with the package: at hand at once, and as good as its card says."""

import json
import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

from hundredfold import Dataset, Predictor, load_sample
from hundredfold.cli.main import main
from hundredfold.evaluation.evaluate import measure_model
from hundredfold.runs.bundled import BUNDLED, find_run
from hundredfold.support.files import cache_folder

PACKAGE = Path(str(resources.files("hundredfold") / "weights"))


def test_it_is_small() -> None:
    assert [path.name for path in PACKAGE.iterdir()] == list(BUNDLED)
    assert sum(path.stat().st_size for path in PACKAGE.rglob("*")) < 6e6


def test_it_knows_the_sample() -> None:
    sample = load_sample()
    answers = Predictor.load("strong")(list(sample.test.images))
    names = [sample.classes[label] for label in sample.test.labels.tolist()]
    right = sum(answer.label == name for answer, name in zip(answers, names, strict=True))
    assert right > 0.6 * len(names)


def test_its_card_has_the_figures_of_its_weights(cifar: Dataset) -> None:
    run = find_run("strong")
    found, _ = measure_model(run.model(), cifar.test[::5], run.info())  # 2,000 of the 10,000
    card = (PACKAGE / "strong" / "README.md").read_text()
    for view in ("test", "test_flip"):
        for name in ("fine_top1", "coarse_top1"):  # two standard errors
            assert found[view][name] == pytest.approx(run.metrics()[view][name], abs=0.02)
            assert f"{run.metrics()[view][name]:.2%}" in card


def test_a_picture_needs_no_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sample = load_sample()
    Image.fromarray(sample.test.images[7].permute(1, 2, 0).numpy()).save("picture.png")
    assert main(["predict", "picture.png", "--format", "json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    want = Predictor.load("strong")("picture.png")
    assert answer["classes"][0]["name"] == want.label
    Path("pictures").mkdir()
    Path("picture.png").rename("pictures/picture.png")
    assert main(["predict", "pictures"]) == 0
    assert main(["predict", "strong", "pictures/picture.png"]) == 0
    assert want.label in capsys.readouterr().out
    assert main(["explain", "strong", "pictures/picture.png", "--like", "0"]) == 0


def test_it_becomes_a_run_like_any_other_in_the_cache(tmp_path: Path) -> None:
    first, second = find_run("strong"), find_run("strong")
    assert first == second
    assert first.path.parent == cache_folder() / "models"
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]
    assert re.fullmatch(r"strong-[0-9a-f]{12}", first.path.name)
    assert first.finished
    assert first.info().temperature != 1
    assert all(value.isfinite().all() for value in first.model().state_dict().values())
    Path("strong").mkdir()  # one's own run goes first
    assert find_run("strong").path == Path("strong")


def test_rounding_to_16_bits_is_exact_in_32() -> None:
    for value in find_run("strong").model().state_dict().values():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert value.half().float().equal(value)
