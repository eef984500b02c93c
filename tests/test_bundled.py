"""The bundled model: it works without training, and is as accurate as its card says."""

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
from hundredfold.runs.bundled import BUNDLED, BY_DEFAULT, find_run, pack_weights, unpack_weights
from hundredfold.support.files import cache_folder

PACKAGE = Path(str(resources.files("hundredfold") / "weights"))


def test_bundled_weights_are_small() -> None:
    assert [path.name for path in PACKAGE.iterdir()] == list(BUNDLED)
    assert sum(path.stat().st_size for path in PACKAGE.rglob("*")) < 6e6


def test_bundled_model_predicts_the_sample() -> None:
    sample = load_sample()
    answers = Predictor.load("strong")(list(sample.test.images))
    names = [sample.classes[label] for label in sample.test.labels.tolist()]
    right = sum(answer.label == name for answer, name in zip(answers, names, strict=True))
    assert right > 0.6 * len(names)


def test_model_card_has_the_metrics_of_the_weights(cifar: Dataset) -> None:
    run = find_run("strong")
    found, _ = measure_model(run.model(), cifar.test[::5], run.info())  # 2,000 of the 10,000
    card = (PACKAGE / "strong" / "README.md").read_text()
    for view in ("test", "test_flip"):
        for name in ("fine_top1", "coarse_top1"):  # two standard errors
            assert found[view][name] == pytest.approx(run.metrics()[view][name], abs=0.02)
            assert f"{run.metrics()[view][name]:.2%}" in card


def test_bundled_model_predicts_pictures_without_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
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


def test_bundled_model_is_copied_to_the_cache_as_a_run(tmp_path: Path) -> None:
    first, second = find_run("strong"), find_run("strong")
    assert first == second
    assert first.path.parent == cache_folder() / "models"
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]
    assert re.fullmatch(r"strong-[0-9a-f]{12}", first.path.name)
    assert first.finished
    assert first.info().temperature != 1
    assert all(value.isfinite().all() for value in first.model().state_dict().values())
    Path("strong").mkdir()  # a run of the user takes precedence
    assert find_run("strong").path == Path("strong")


def test_packed_weights_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    weights = {
        "conv.weight": torch.randn(64, 32, 3, 3) * torch.rand(64, 1, 1, 1),
        "norm.bias": torch.randn(64),
        "norm.count": torch.tensor(7),
    }
    weights["conv.weight"][3] = 0
    packed = pack_weights(weights)
    found = unpack_weights(packed)
    assert list(found) == list(weights)
    largest = weights["conv.weight"].abs().amax((1, 2, 3), keepdim=True)
    error = (found["conv.weight"].float() - weights["conv.weight"]).abs()
    assert (error <= largest * (0.5 / 63 + 1e-3)).all()
    assert found["norm.bias"].equal(weights["norm.bias"].half())
    assert found["norm.count"] == 7
    assert len(packed) < 64 * 32 * 9  # less than a byte each


def test_weights_rounded_to_16_bits_are_exact_in_32() -> None:
    for value in find_run("strong").model().state_dict().values():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert value.half().float().equal(value)


def test_predict_says_that_it_uses_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save("picture.png")
    assert main(["predict", "picture.png", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert BY_DEFAULT in said.err
    assert len(json.loads(said.out)) == 1
    assert main(["predict", "strong", "picture.png"]) == 0
    assert BY_DEFAULT not in capsys.readouterr().err


def test_damaged_files_of_the_bundled_model_are_copied_again() -> None:
    run = find_run("strong")
    path = run.path / "weights.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    (run.path / "model.json").unlink()
    assert find_run("strong") == run
    assert path.read_bytes() == good
    read = Predictor.load("strong")
    assert len(read.info.classes) == 100
