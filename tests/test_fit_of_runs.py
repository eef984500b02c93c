"""The fit of pictures that are not square is the same in training and in every prediction."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import ImageOps
from support.making import Load, make_config, unfinish, update_digests
from support.oblong import BILINEAR, FITS, jpeg, plainly, smooth

from hundredfold import Config, Predictor, Run, evaluate, load_data, quick, train
from hundredfold.app.serve import make_app
from hundredfold.app.served_model import make_served_model
from hundredfold.cli.main import main
from hundredfold.data.load import load_to_train
from hundredfold.evaluation.evaluate import measure_model, run_data
from hundredfold.export.export import export
from hundredfold.inference.logits import batch_size, predict_logits
from hundredfold.inference.predict import Prediction, predict_many
from hundredfold.models.build import build_model
from hundredfold.pictures.load import load_picture
from hundredfold.runs.bundled import find_run
from hundredfold.support.errors import UserError
from hundredfold.training.resume import reproduce, resume


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of upright and wide pictures, as PNG files and large JPEG files."""
    root = tmp_path_factory.mktemp("oblong")
    for i in range(28):
        label, seed = ("ant", "bee")[i % 2], i
        folder = root / ("test" if i < 8 else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        width, height = ((40, 90), (90, 40))[i // 2 % 2]
        if i % 3:
            smooth(width, height, seed).save(folder / f"{i}.png")
        else:
            content = jpeg(smooth(9 * width, 9 * height, seed), 1 + i % 8)
            (folder / f"{i}.jpg").write_bytes(content)
    return root


@pytest.fixture(scope="module", params=FITS)
def fitted_run(
    request: pytest.FixtureRequest, oblong: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A tiny run on the oblong pictures for each fit."""
    config = quick(
        data=str(oblong),
        fit=request.param,
        size=32,
        widths=(8, 8),
        epochs=0.9,
        batch_size=8,
        validation=0.2,
        out=str(tmp_path_factory.mktemp("runs")),
        device="cpu",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return train(config, quiet=True)


def values(prediction: Any, classes: tuple[str, ...]) -> list[float]:
    """Return the probabilities of a prediction in the order of the classes."""
    assert isinstance(prediction, Prediction)
    return [dict(prediction.classes)[name] for name in classes]


STANDALONE = """
import json, sys
from pathlib import Path
import onnxruntime, predict
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
size, fit = json.loads(about["image_size"]), json.loads(about["fit"])
rows = []
for name in sys.argv[1:]:
    rows += session.run(None, {"pictures": predict.pictures(Path(name), size, fit)})[0].tolist()
print(json.dumps(rows))
"""


def test_all_ways_to_predict_give_the_same_probabilities(fitted_run: Run, oblong: Path) -> None:
    run, info = fitted_run, fitted_run.info()
    assert run.config().fit == info.fit and run.config().data == str(oblong)
    dataset = run_data(run)
    names = [str(oblong / name) for name in dataset.test.names]
    assert len(names) == 8
    want = (run.test_logits()["logits"] / info.temperature).softmax(1).numpy()

    assert evaluate(run)["test"] == run.metrics()["test"]
    again = measure_model(run.model(), dataset.test, info)[1]["logits"]
    predictor = Predictor.load(run, "cpu")
    found = {
        "evaluate": (again / info.temperature).softmax(1).tolist(),
        "predictor": [values(predictor(name), info.classes) for name in names],
        "many": [
            values(answer, info.classes)
            for _, answer in predict_many(predictor, ((name, name) for name in names))
        ],
    }
    served = make_served_model("oblong", predictor, None)
    with TestClient(make_app(served, "localhost"), "http://127.0.0.1") as client:
        answers = [
            client.post("/api/predict", content=Path(name).read_bytes()).json()["classes"]
            for name in names
        ]
        scores = [{score["name"]: score["probability"] for score in answer} for answer in answers]
        found["app"] = [[score[name] for name in info.classes] for score in scores]
        explained = client.post("/api/explain", content=Path(names[0]).read_bytes()).json()
        first = {score["name"]: score["probability"] for score in explained["classes"]}
        assert [first[name] for name in info.classes] == pytest.approx(want[0], abs=1e-5)
    folder = export(run, "onnx").path.parent
    done = subprocess.run(
        [sys.executable, "-c", STANDALONE, *names], check=False, capture_output=True, text=True,
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found["exported"] = json.loads(done.stdout)
    for way, rows in found.items():
        np.testing.assert_allclose(rows, want, atol=1e-5, err_msg=way)

    script = [sys.executable, "predict.py", *names]
    printed = subprocess.run(script, check=True, capture_output=True, text=True, cwd=folder).stdout
    for line, row in zip(printed.splitlines(), want, strict=True):
        _, label, probability = line.split("\t")
        assert label == info.classes[row.argmax()]
        assert float(probability) == pytest.approx(row.max(), abs=6e-5)
    for other in FITS:
        differs = Predictor(predictor.model, dataclasses.replace(info, fit=other))
        rows = [values(answer, info.classes) for answer in map(differs, names)]
        assert np.allclose(rows, want, atol=1e-5) == (other == info.fit)


def test_a_run_repeats_with_its_fit(fitted_run: Run) -> None:
    assert [part.difference for part in reproduce(fitted_run)] == ["", "", ""]


def test_an_interrupted_run_continues_with_its_fit(
    oblong: Path, load: Load, tiny_config: Config
) -> None:
    changes: dict[str, Any] = {"data": str(oblong), "size": 32, "epochs": 1.0, "fit": "squash"}
    run = train(dataclasses.replace(tiny_config, **changes), quiet=True)
    want = run.test_logits()
    unfinish(run)
    with pytest.raises(UserError, match="is not the data that"):
        resume(run, load(oblong, size=32), quiet=True)
    found = resume(run, quiet=True).test_logits()
    assert all(found[name].equal(want[name]) for name in want)


def test_data_of_another_fit_is_refused(oblong: Path, load: Load, tiny_config: Config) -> None:
    padded = load(oblong, size=32, fit="pad")
    assert padded.fit == "pad" and padded.with_labels("fine").fit == "pad"
    config = dataclasses.replace(tiny_config, fit="squash")
    message = "--fit is squash, but the pictures were made square by pad: load them with"
    with pytest.raises(UserError, match=message):
        train(config, padded, quiet=True)
    run = train(dataclasses.replace(tiny_config, epochs=0.5), padded, quiet=True)  # fit is auto
    assert run.config().fit == run.info().fit == "pad"
    with pytest.raises(UserError, match="is not the data that"):
        evaluate(run, load(oblong, size=32))


def test_the_command_line_trains_and_predicts_with_a_fit(
    oblong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(oblong), "--size", "32", "--widths", "8", "--epochs", "0.5"]
    assert main(["train", "quick", *flags, "--fit", "pad", "--device", "cpu", "--quiet"]) == 0
    (path,) = Path("runs").iterdir()
    run = Run(path)
    assert run.config().fit == run.info().fit == "pad"
    capsys.readouterr()
    name = str(next((oblong / "test/ant").glob("*.png")))
    assert main(["predict", str(path), name, "--format", "json"]) == 0
    label = Predictor.load(run)(name).label
    assert label in capsys.readouterr().out
    assert main(["evaluate", str(path)]) == 0
    with pytest.raises(SystemExit):
        main(["train", "quick", *flags, "--fit", "stretch"])
    assert "'auto', 'crop', 'squash', 'pad'" in " ".join(capsys.readouterr().err.split())


def test_square_data_sets_ignore_the_fit(tiny_config: Config) -> None:
    config, dataset = load_to_train(dataclasses.replace(tiny_config, data="sample", fit="pad"))
    assert config.fit == dataset.fit == "crop"
    assert dataset.digest() == load_data("sample").digest()
    epochs, batch_size = 0.05, 64
    run = train(
        dataclasses.replace(
            tiny_config, data="sample", fit="pad", epochs=epochs, batch_size=batch_size
        ),
        quiet=True,
    )
    assert run.config().fit == run.info().fit == "crop"


def test_a_model_without_a_fit_crops(run: Run) -> None:
    path = run.path / "model.json"
    old = json.loads(path.read_text())
    assert old.pop("fit") == "crop"
    path.write_text(json.dumps(old))
    update_digests(run)
    assert run.info().fit == "crop"
    assert find_run("strong").info().fit == "crop"  # a model that was trained before
    wide = smooth(90, 40)
    middle = ImageOps.fit(wide, (32, 32), BILINEAR)
    assert Predictor.load(run)(wide) == Predictor.load(run)(middle)


@pytest.mark.parametrize("side", [32, 128, 129, 160])
def test_large_pictures_are_predicted_in_small_batches(run: Run, side: int) -> None:
    info = dataclasses.replace(run.info(), image_size=side)
    model, seen = build_model(info), []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    images = torch.randint(0, 256, (60, 3, side, side), dtype=torch.uint8)
    logits = predict_logits(model, images, info)
    assert seen == ([60] if side <= 128 else [25, 25, 10])
    assert logits.equal(predict_logits(model, images.split(50), info))
    assert 500 % batch_size(info) == 0


def test_pictures_of_384_pixels_train_and_predict(oblong: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        make_config(tmp_path / "runs"), data=str(oblong), size=384, fit="pad", epochs=1.0
    )
    run = train(config, quiet=True)
    assert run.info().image_size == 384
    assert evaluate(run)["test"] == run.metrics()["test"]
    with pytest.raises(UserError, match="--size is 385, but must be 0, or 32 to 384 pixels"):
        dataclasses.replace(config, size=385)


def test_many_files_are_decoded_in_processes_with_the_fit(
    oblong: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = load(oblong, size=40, fit="pad").digest()
    monkeypatch.setattr("hundredfold.data.decode.MIN_FOR_PROCESSES", 10)
    for path in (Path("cache") / "hundredfold/pictures").glob("*.pixels"):
        path.unlink()
    assert load(oblong, size=40, fit="pad").digest() == want


def test_load_picture_takes_the_fit(tmp_path: Path) -> None:
    image = smooth(90, 40)
    image.save(tmp_path / "wide.png")
    for fit in FITS:
        want = torch.from_numpy(plainly(image, 32, fit).copy()).permute(2, 0, 1)
        for same in (image, tmp_path / "wide.png", np.asarray(image)):
            assert load_picture(same, 32, fit).equal(want)
