"""Pictures that show none of the classes of a model."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.making import Notes, Train, make_split, update_digests
from support.oblong import noise
from test_head import configured
from test_teach import COLOURS, picture

from hundredfold import Dataset, Predictor, Run, UserError, evaluate, finetune, probe, train
from hundredfold.cli.main import main
from hundredfold.export.export import export
from hundredfold.export.hub import card
from hundredfold.export.onnx import OnnxModel
from hundredfold.inference.features import predict_with_features
from hundredfold.inference.known import (
    DIRECTIONS,
    FOREIGN,
    Known,
    known_from,
    known_tensors,
    make_known,
    outside_part,
    principal_directions,
)
from hundredfold.pictures.load import Picture, load_picture, to_image
from hundredfold.report.page import percent
from hundredfold.report.report import write_report
from hundredfold.runs.new_run import copy_model
from hundredfold.support.text import plural

KNOWN_FILE = "known.safetensors"


def test_the_part_outside_is_that_of_the_singular_value_decomposition() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(300, 100, generator=rng) * torch.logspace(0, -2, 100)
    others = torch.randn(20, 120, generator=rng)
    centred = features.double().numpy() - features.double().numpy().mean(0)
    rows = np.linalg.svd(centred)[2][:DIRECTIONS]
    away = others[:, :100].double().numpy() - features.double().numpy().mean(0)
    rest = away - away @ rows.T @ rows
    want = np.linalg.norm(rest, axis=1) / np.linalg.norm(away, axis=1)
    found = outside_part(others, *principal_directions(features))
    assert found.numpy() == pytest.approx(want, abs=1e-5)
    assert principal_directions(features[:9])[1].shape == (100, 4)


def make(count: int = 400) -> tuple[Known, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    features, largest, outside = (
        torch.randn(*size, generator=rng) for size in ((50, 8), (count,), (count,))
    )
    return make_known(features, largest, outside), largest, outside


def test_known_is_the_share_of_held_out_pictures_that_look_no_more_familiar() -> None:
    known, largest, outside = make()
    score = (largest - largest.mean()) / largest.std() - (outside - outside.mean()) / outside.std()
    rng = torch.Generator().manual_seed(2)
    logits, features = torch.randn(30, 5, generator=rng), torch.randn(30, 8, generator=rng)
    part = outside_part(features, known.mean, known.directions)
    own = (logits.amax(1) - largest.mean()) / largest.std() - (
        part - outside.mean()
    ) / outside.std()
    want = [(score <= value).float().mean().item() for value in own]
    assert known(logits, features).tolist() == pytest.approx(want, abs=1 / 400)
    assert len(make(5000)[0].scores) == 1000


def test_stored_tensors_that_do_not_belong_together_are_refused() -> None:
    known, *_ = make()
    tensors = known_tensors(known)
    assert all(
        torch.equal(value, known_tensors(known_from(tensors, "run"))[name])
        for name, value in tensors.items()
    )
    for change in (
        {"mean": tensors["mean"][:3]},
        {"scale": torch.ones(2)},
        {"scores": torch.empty(0)},
        {"scores": tensors["scores"].double()},
        {"directions": tensors["directions"] * torch.nan},
    ):
        with pytest.raises(UserError, match="do not belong together"):
            known_from(tensors | change, "run")
    with pytest.raises(UserError, match="other tensors"):
        known_from({"mean": tensors["mean"]}, "run")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A head on pretrained features of 60 pictures, too few to hold 50 out."""
    root = tmp_path_factory.mktemp("taught")
    for label in COLOURS:
        (root / "photos" / label).mkdir(parents=True)
        for seed in range(30):
            (root / "photos" / label / f"{seed}.jpg").write_bytes(picture(label, seed))
    config = probe(data=str(root / "photos"), out=str(root / "runs"), device="cpu")
    return train(config, quiet=True)


@pytest.mark.long
def test_pictures_of_another_kind_are_told_apart(
    taught: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor.load(taught)
    own = predictor([picture(label, seed) for label in COLOURS for seed in range(100, 115)])
    assert sum(found.is_foreign for found in own) <= 6
    foreign = predictor([noise(200, 200, "RGB", seed) for seed in range(10)])
    assert all(found.is_foreign for found in foreign)
    assert foreign[0].best(1).known == foreign[0].known

    metrics = evaluate(taught)
    assert metrics["test"] == taught.metrics()["test"]
    assert metrics["foreign"] == taught.metrics()["foreign"]
    known = taught.test_known()
    assert known is not None
    assert metrics["foreign"] == pytest.approx(sum(value < 0.05 for value in known) / len(known))

    noise(200, 200, "RGB", 3).save("foreign.png")
    Path("own.jpg").write_bytes(picture("warm", 104))
    expected = {"foreign.png": foreign[3].known, "own.jpg": own[4].known}
    main(["predict", str(taught), "foreign.png"])
    assert "probably shows none of the model's classes. The nearest" in capsys.readouterr().out
    main(["predict", str(taught), "foreign.png", "own.jpg", "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["picture"]: row["known"] for row in rows} == pytest.approx(expected)
    main(["predict", str(taught), "foreign.png", "own.jpg", "--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["picture"]: float(row["known"]) for row in lines} == pytest.approx(expected)
    main(["predict", str(taught), "foreign.png", "own.jpg"])
    assert capsys.readouterr().out.count("none of these") == 1
    main(["predict", str(taught), "foreign.png", "own.jpg", "--no-reject"])
    assert "none of these" not in capsys.readouterr().out


def test_held_out_pictures_say_how_familiar_pictures_look(tiny: Dataset, tmp_path: Path) -> None:
    data = dataclasses.replace(tiny, validation=make_split(60, 6, 3))
    for recipe, changes in ((probe, {}), (finetune, {"epochs": 1.0, "batch_size": 24, "lr": 1e-4})):
        run = train(configured(recipe, tmp_path / "runs", **changes), data, quiet=True)
        predictor = Predictor.load(run)
        assert predictor.known
        assert len(predictor.known.scores) == 60
        assert data.validation
        held = predictor.predict(data.validation.images)
        assert 0 < sum(found.is_foreign for found in held) <= 12
        logits, features = predict_with_features(predictor.model, tiny.test.images, predictor.info)
        want = predictor.known(logits, features).tolist()
        assert [found.known for found in predictor.predict(tiny.test.images)] == want
        count, share = sum(value < FOREIGN for value in want), run.metrics()["foreign"]
        assert 0 < count < 6 and share == pytest.approx(count / 24)
        page = write_report(run, data).read_text()
        assert f"{plural(count, 'test picture')} of 24 ({percent(share)}) would be" in page


def test_training_says_that_there_are_too_few_pictures(tiny: Dataset, tmp_path: Path) -> None:
    display = Notes()
    config = configured(finetune, tmp_path / "runs", epochs=1.0, batch_size=24, lr=1e-4)
    run = train(config, tiny, display=display)
    assert 'There are too few pictures, so the model cannot answer "none of these".' in display.said
    assert not (run.path / KNOWN_FILE).exists()
    assert "is_foreign" not in card(run, "me/tiny")


def test_networks_from_scratch_do_not_say(trained: Train, tiny: Dataset) -> None:
    run = trained()
    assert not (run.path / KNOWN_FILE).exists()
    (found,) = Predictor.load(run).predict(tiny.test.images[:1])
    assert (found.known, found.is_foreign) == (None, False)
    assert "known" not in found.as_json()


@pytest.mark.long
def test_a_copy_for_others_says_it_too(taught: Run, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    copy = copy_model(taught, tmp_path / "copy", taught.config())
    assert "`prediction.is_foreign` is true" in card(taught, "me/warm")
    pictures: list[Picture] = [noise(200, 200, "RGB", 1), picture("warm", 5)]
    assert Predictor.load(copy)(pictures) == Predictor.load(taught)(pictures)
    assert copy.test_known() is None


@pytest.mark.long
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_exported_models_say_it_too(to: Literal["onnx", "torch"], taught: Run) -> None:
    found = export(taught, to)
    assert found.known is not None and found.known <= 1.5 / 60
    predictor = Predictor.load(taught)
    images = torch.stack(
        [load_picture(picture("warm", 5), 224), load_picture(noise(224, 224, "RGB", 1), 224)]
    )
    want = [answer.known for answer in predictor.predict(images)]
    pixels = images.permute(0, 2, 3, 1).contiguous()
    if to == "torch":
        probabilities, known = torch.export.load(found.path).module()(pixels)
    else:
        probabilities, known = OnnxModel(found.path).outputs(pixels.numpy())
        Path("warm.jpg").write_bytes(picture("warm", 5))
        script = found.path.with_name("predict.py")
        command = [sys.executable, str(script), "warm.jpg"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert printed.rstrip().endswith(f"{float(known[0]):.3f}")
    assert known.tolist() == pytest.approx(want, abs=1.5 / 60)
    assert probabilities.shape == (2, 2)


@pytest.mark.long
def test_the_file_is_verified(taught: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(taught.path, tmp_path / "copy")))
    path = run.path / KNOWN_FILE
    tensors = load_file(path)
    save_file(tensors | {"scores": tensors["scores"] - 100}, path)
    with pytest.raises(UserError, match="is not what training wrote"):
        Predictor.load(run)
    path.unlink()
    with pytest.raises(UserError, match=f"lacks {KNOWN_FILE}"):
        Predictor.load(run)
    save_file(tensors | {"scale": torch.ones(3)}, path)
    update_digests(run)
    with pytest.raises(UserError, match="do not belong together"):
        Predictor.load(run)
    to_image(torch.zeros(3, 8, 8, dtype=torch.uint8)).save("x.png")
    assert main(["predict", str(run), "x.png"]) == 2
    assert FOREIGN == 0.05
