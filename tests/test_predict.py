"""Prediction: the same result for every kind of input."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hundredfold import Config, Dataset, Predictor, Run, UserError, train
from hundredfold.cli.main import main
from hundredfold.inference.predict import Prediction, find_pictures, predict_many
from hundredfold.metrics.scores import coarse_probabilities


@pytest.fixture
def folder(tiny: Dataset, tmp_path: Path) -> Path:
    """The test pictures as files in two folders, and a text file."""
    folder = tmp_path / "pictures"
    for i, image in enumerate(tiny.test.images):
        path = folder / str(i % 2) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    (folder / "notes.txt").write_text("not a picture, and not named like one")
    return folder


def expected(run: Run, index: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return fine and coarse probabilities from the recorded test predictions."""
    info = run.info()
    logits = run.test_logits()["logits"][index : index + 1] / info.temperature
    fine, coarse = logits.softmax(1)[0], coarse_probabilities(logits, info.parents)[0]
    return (
        dict(zip(info.classes, fine.tolist(), strict=True)),
        dict(zip(info.superclasses, coarse.tolist(), strict=True)),
    )


def test_every_kind_of_input_gives_the_probabilities_of_evaluation(
    run: Run, tiny: Dataset, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor.load(run)
    image = tiny.test.images[7]
    array = image.permute(1, 2, 0).numpy()
    path = folder / "1" / "07.png"
    ways: list[Prediction] = [
        predictor(str(path)),
        predictor(path),
        predictor(path.read_bytes()),
        predictor(io.BytesIO(path.read_bytes())),
        predictor([io.BytesIO(path.read_bytes())])[0],
        predictor(Image.fromarray(array)),
        predictor([image])[0],
        predictor([array, path])[1],
    ]
    for batch in (predictor(image), predictor(array)):
        assert isinstance(batch, Prediction)
        ways.append(batch)
    for many in (predictor(tiny.test.images), predictor(np.stack([array] * 8))):
        assert isinstance(many, list)
        ways.append(many[7])
    paths = find_pictures(folder, lambda _: None)
    found = dict(predict_many(predictor, ((str(p), p) for p in paths)))[str(path)]
    assert isinstance(found, Prediction)
    fine, coarse = expected(run, 7)
    for way in [*ways, found]:
        assert dict(way.classes) == pytest.approx(fine, abs=1e-5)
        assert dict(way.superclasses) == pytest.approx(coarse, abs=1e-5)
        assert way.label == max(fine, key=lambda name: fine[name])
        assert way.probability == pytest.approx(max(fine.values()), abs=1e-5)
        values = [score.probability for score in way.classes]
        assert values == sorted(values, reverse=True)
    assert main(["predict", str(run), str(path), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {s["name"]: s["probability"] for s in row["classes"]} == pytest.approx(
        {s.name: s.probability for s in ways[0].classes[:5]}, abs=1e-5
    )


def test_predictor_needs_only_model_weights_and_metrics(
    run: Run, tiny: Dataset, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.json", "weights.safetensors", "metrics.json"):
        (bare / name).write_bytes((run.path / name).read_bytes())
    images = tiny.test.images
    assert torch.equal(
        Predictor.load(bare).logits(list(images)), Predictor.load(run).logits(list(images))
    )


def test_temperature_is_fitted_and_used(run: Run) -> None:
    assert run.info().temperature != 1
    raw = run.test_logits()["logits"]
    loss = torch.nn.functional.cross_entropy(
        raw.double() / run.info().temperature, run.test_logits()["labels"]
    )
    assert run.metrics()["test"]["loss"] == pytest.approx(loss.item())


def test_model_of_coarse_labels_predicts_no_superclasses(
    tiny: Dataset, tiny_config: Config
) -> None:
    from dataclasses import replace

    run = train(replace(tiny_config, labels="coarse"), tiny, quiet=True)
    prediction = Predictor.load(run)(tiny.test.images[0])
    assert isinstance(prediction, Prediction)
    assert {score.name for score in prediction.classes} == {"low", "high"}
    assert prediction.superclasses == ()


def test_open_file_is_a_picture(run: Run, folder: Path) -> None:
    path = folder / "1" / "07.png"
    with path.open("rb") as file:
        assert Predictor.load(run)(file) == Predictor.load(run)(path)
    with path.open() as text, pytest.raises(UserError, match="must be open in binary mode"):
        Predictor.load(run)(text)  # type: ignore[call-overload]


def test_empty_list_gives_no_predictions(run: Run) -> None:
    assert Predictor.load(run)([]) == []


@pytest.mark.parametrize("wrong", [None, 5, [None], {"a": 1}.items()])
def test_error_names_the_type_of_an_input_that_is_no_picture(run: Run, wrong: Any) -> None:
    with pytest.raises(UserError, match=r"or a tensor, not (NoneType|int|tuple)"):
        Predictor.load(run)(wrong)


def test_unreadable_file_is_named_and_the_others_are_predicted(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "0" / "broken.jpg").write_text("not a picture")
    assert main(["predict", str(run), str(folder), "--format", "csv", "--top", "2"]) == 2
    output = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(output.out)))
    assert len(rows) == 25
    (bad,) = [row for row in rows if row["error"]]
    assert "broken.jpg" in bad["picture"]
    assert "broken.jpg" in output.err
    assert "1 of 25" in output.err
    best = Predictor.load(run)(rows[0]["picture"])
    assert rows[0]["class_1"] == best.label
    assert float(rows[0]["probability_1"]) == pytest.approx(best.probability, abs=1e-5)
    assert rows[0]["superclass"] == best.superclasses[0].name


def test_picture_from_standard_input(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "0" / "02.png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert main(["predict", str(run), "-"]) == 0
    assert Predictor.load(run)(path).label in capsys.readouterr().out


def test_unreadable_sources_keep_their_place_in_the_output(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "0" / ".hidden.png").write_text("of the system")
    path = str(folder / "0" / "02.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"junk")))
    sources = [str(folder / "empty"), path, "-", "http://localhost:no/x.png"]
    assert main(["predict", str(run), *sources, "--format", "json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert [row["picture"] for row in rows] == sources
    assert ["error" in row for row in rows] == [True, False, True, True]
    assert len(find_pictures(folder / "0")) == 12


def test_table_has_a_row_for_each_picture(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(folder / "0"), str(folder / "1" / "01.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.rstrip().endswith("%") for line in lines) == 13


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name either pictures"),
        (["a.png", "--test", "1"], "Name either pictures"),
        (["a.png", "--top", "0"], "--top is 0"),
        (["nowhere.png"], "nowhere.png"),
        (["https://localhost:1/x.png"], "cannot be downloaded"),
        (["empty"], "holds no pictures"),
    ],
)
def test_invalid_arguments_say_what_to_do(
    run: Run,
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(run), *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_picture_without_a_run_is_predicted_with_the_bundled_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(next(folder.rglob("*.png")))
    assert main(["predict", "--format", "json", "--top", "3", picture]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["picture"] == picture and len(row["classes"]) == 3
    assert main(["predict", "nosuch.jpg"]) == 2
    assert "There is no run and no picture at nosuch.jpg" in capsys.readouterr().err


def test_test_picture_is_drawn_with_its_label(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(Config(data="sample", epochs=0.1, widths=(8,), device="cpu"), quiet=True)
    assert main(["predict", str(run), "--test", "17"]) == 0
    with Image.open(run.path / "figures" / "test-17.png") as figure:
        assert min(figure.size) > 300
    label = run.info().classes[int(run.test_logits()["labels"][17])]
    assert f"test picture 17: {label}" in capsys.readouterr().out
    assert main(["predict", str(run), "--test", "17", "--format", "json", "--top", "2"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["classes"]) == 2
    assert main(["predict", str(run), "--test", "500"]) == 2
    assert "0 to 499" in capsys.readouterr().err


def test_loading_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        Predictor.load(tmp_path / "none")
