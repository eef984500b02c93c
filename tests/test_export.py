"""Exported models: the predictor's probabilities, metadata, and the script beside them."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.making import Train, make_config, make_tiny
from support.pets import picture

from hundredfold import Dataset, Predictor, Run, UserError, train
from hundredfold.cli.main import main
from hundredfold.export.export import ExportResult, export
from hundredfold.export.onnx import OnnxModel
from hundredfold.inference.predict import Prediction, predict_many
from hundredfold.support.errors import CheckFailed

MODELS: dict[str, dict[str, Any]] = {
    "whitenet": {},
    "whiteresnet": {"model": "whiteresnet"},
    "resnet9": {"model": "resnet9", "widths": (4, 4, 8, 8)},
    "timm": {"model": "timm:test_resnet", "widths": ()},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """A trained run, exported as an ONNX model and as its 8-bit variant."""
    config = dataclasses.replace(
        make_config(tmp_path_factory.mktemp("runs")), epochs=12.0, lr=0.5, widths=(16, 32, 32)
    )
    return export(train(config, make_tiny(), quiet=True), "onnx", make_tiny(), int8=True)


def run_of(exported: ExportResult) -> Run:
    return Run(exported.path.parent.parent)


def probabilities(run: Run, images: torch.Tensor) -> Any:
    """Return the predictor's probabilities (N, C) for pictures (N, 3, S, S)."""
    answers = Predictor.load(run)(list(images))
    return np.array(
        [[dict(answer.classes)[name] for name in run.info().classes] for answer in answers]
    )


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.long
def test_exported_model_gives_the_probabilities_of_the_predictor(
    to: Any, changes: dict[str, Any], trained: Train, tiny: Dataset
) -> None:
    run = trained(**changes)
    found = export(run, to, tiny)
    assert max(found.parity.values()) < 1e-4
    assert found.parity.keys() == {"1", "2", "7"}
    assert found.pictures == len(tiny.test)
    assert found.accuracy["exported"]["fine_top1"] == run.metrics()["test"]["fine_top1"]
    assert found.accuracy["predictor"] == run.metrics()["test"]
    pixels = tiny.test.images.permute(0, 2, 3, 1).contiguous()
    if to == "onnx":
        got = OnnxModel(found.path)(pixels.numpy())
    else:
        got = torch.export.load(found.path).module()(pixels).detach().numpy()
    np.testing.assert_allclose(got, probabilities(run, tiny.test.images), atol=1e-5)
    kept = json.loads(found.path.with_name(f"{found.path.name}.json").read_text())
    assert kept["parity"] == found.parity


def test_metadata_describe_classes_and_preparation(exported: ExportResult) -> None:
    run = run_of(exported)
    for path in ("model.onnx", "model-int8.onnx"):
        model = OnnxModel(run.path / "export" / path)
        facts = model.session.get_modelmeta().custom_metadata_map
        for name in ("classes", "superclasses", "parents", "mean", "std"):
            assert tuple(json.loads(facts[name])) == getattr(run.info(), name)
        assert json.loads(facts["image_size"]) == 32
        (given,) = model.session.get_inputs()
        assert (given.name, given.type, given.shape[1:]) == (
            "pictures",
            "tensor(uint8)",
            [32, 32, 3],
        )
        assert isinstance(given.shape[0], str)  # any batch size


def test_8_bit_model_is_smaller_and_almost_as_accurate(exported: ExportResult) -> None:
    accuracy = exported.accuracy
    assert abs(accuracy["int8"]["fine_top1"] - accuracy["predictor"]["fine_top1"]) < 0.1
    small = exported.path.with_name("model-int8.onnx")
    assert small.stat().st_size < 0.6 * exported.path.stat().st_size


def call_script(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(run.path / "export" / "predict.py")
    return subprocess.run(
        [sys.executable, script, *arguments], check=False, capture_output=True, text=True
    )


def run_script(run: Run, *arguments: str) -> list[list[str]]:
    done = call_script(run, *arguments)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_script_predicts_the_same_classes(
    exported: ExportResult, tiny: Dataset, tmp_path: Path
) -> None:
    run = run_of(exported)
    script = (run.path / "export" / "predict.py").read_text()
    assert len(script.splitlines()) <= 80
    assert "hundredfold" not in script
    many = tiny.train.images.repeat(11, 1, 1, 1)  # 1,056
    np.save(tmp_path / "many.npy", many.permute(0, 2, 3, 1).numpy())
    rows, answers = run_script(run, "many.npy"), Predictor.load(run)(list(many))
    assert len(rows) == len(many)
    assert [row[1] for row in rows] == [answer.label for answer in answers]


def of_every_mode(image: Image.Image) -> dict[str, Image.Image]:
    """Return an RGB picture in every mode that Pillow can convert it to, by name."""
    alpha = image.convert("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    grey = np.asarray(image.convert("L"))
    palette = image.quantize(16)
    keyed, shaded, key_grey, key_rgb = palette.copy(), palette.copy(), alpha.copy(), image.copy()
    keyed.info["transparency"] = 3
    shaded.info["transparency"] = bytes(range(0, 160, 10))
    key_grey.info["transparency"] = int(grey[0, 0])
    key_rgb.info["transparency"] = image.getpixel((0, 0))
    names = ("1", "L", "RGB", "CMYK", "YCbCr", "HSV")
    return {name: image.convert(name) for name in names} | {
        "LA": Image.merge("LA", (alpha, alpha)),
        "RGBA": Image.merge("RGBA", (*image.split(), alpha)),
        "P": palette,
        "PA": palette.convert("PA"),
        "P keyed": keyed,
        "P shaded": shaded,
        "L keyed": key_grey,
        "RGB keyed": key_rgb,
        "LAB": Image.frombytes("LAB", image.size, image.tobytes()),
        "I": Image.fromarray(grey.astype(np.int32) * 200),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 200),
        "I;16B": Image.fromarray(grey.astype(">u2") * 200),
        "F": Image.fromarray(grey.astype(np.float32) / 300),
        "F too bright": Image.fromarray(grey.astype(np.float32)),
    }


def test_script_reads_every_picture_mode_and_shape_like_the_predictor(
    exported: ExportResult, tmp_path: Path
) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    names = []
    turned = Image.Exif()
    for turn, (side, shape) in enumerate({"wide": (90, 40), "narrow": (33, 80)}.items()):
        turned[0x0112] = 6 + 2 * turn
        image = Image.fromarray(noise).resize(shape, Image.Resampling.BICUBIC)
        for mode, given in of_every_mode(image).items():
            for kind in ("png", "tif", "jpg", "webp", "gif", "bmp", "ppm", "jp2"):
                name = f"{side} {mode}.{kind}"
                with contextlib.suppress(OSError, TypeError, ValueError, Warning):  # not supported
                    given.save(tmp_path / name, exif=turned)
                    names.append(name)
    modes = {name.split(" ", 1)[1].split(".")[0] for name in names}
    assert modes == of_every_mode(Image.fromarray(noise)).keys()
    Image.fromarray(noise).resize((900, 700), Image.Resampling.BICUBIC).save("large.jpg")
    run = run_of(exported)
    found = dict(
        predict_many(Predictor.load(run), ((name, name) for name in (*names, "large.jpg")))
    )
    refused = {name for name, answer in found.items() if isinstance(answer, UserError)}
    done = call_script(run, *names, "large.jpg")
    got = {row[0]: row[1:] for row in (line.split("\t") for line in done.stdout.splitlines())}
    assert done.returncode == 2 and {"wide F too bright.tif"} <= refused < {*names}
    assert {line.split(": ")[1] for line in done.stderr.splitlines()} == refused
    assert got.keys() == found.keys() - refused
    for name, (label, probability) in got.items():
        answer = found[name]
        assert isinstance(answer, Prediction) and answer.label == label, name
        assert float(probability) == pytest.approx(answer.probability, abs=1e-4), name


def test_script_reports_errors(exported: ExportResult, tmp_path: Path) -> None:
    run = run_of(exported)
    shown = call_script(run, "--help")
    assert shown.returncode == 0 and "usage: python predict.py FILE ..." in shown.stdout
    assert call_script(run).returncode == 2
    np.save("small.npy", np.zeros((2, 16, 16, 3), np.uint8))
    np.save("real.npy", np.zeros((2, 32, 32, 3), np.float32))
    np.save("single.npy", np.zeros((32, 32, 3), np.uint8))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.save("none.npy", np.zeros((0, 32, 32, 3), np.uint8))
    Path("text.png").write_text("no picture")
    Path("folder.png").mkdir()
    os.mkfifo("pipe.png")
    picture(tmp_path / "good.png")
    wrong = {
        "missing.png": "no such file",
        "--top": "no such file",
        "folder.png": "no such file",
        "pipe.png": "no such file",
        "text.png": "cannot identify",
        "small.npy": "must be uint8 of shape (N, 32, 32, 3)",
        "real.npy": "float32",
        "single.npy": "of shape (32, 32, 3)",
        "objects.npy": "Python objects",
    }
    done = call_script(run, *wrong, "none.npy", "good.png")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["good.png"]
    for line, (name, reason) in zip(done.stderr.splitlines(), wrong.items(), strict=True):
        assert line.startswith(f"error: {name}: ") and reason in line


def test_exported_model_that_differs_is_deleted(
    run: Run, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.export.export.LIMIT", -1.0)
    with pytest.raises(CheckFailed, match=r"model.onnx was deleted, because its"):
        export(run, "onnx", tiny)
    assert not (run.path / "export" / "model.onnx").exists()


def test_files_of_an_earlier_export_do_not_stay(run: Run, tiny: Dataset) -> None:
    export(run, "onnx", tiny, int8=True)
    assert (run.path / "export/model-int8.onnx").exists()
    export(run, "onnx", tiny)
    assert not (run.path / "export/model-int8.onnx").exists()


def test_export_without_the_data_compares_random_pictures(run: Run, said: list[str]) -> None:
    found = export(run, "onnx", tell=said.append)  # its data has no path
    assert found.accuracy == {}
    assert "not measured on the test set: There is no file or folder tiny" in said[0]
    with pytest.raises(UserError, match="There is no file or folder tiny"):
        export(run, "onnx", int8=True)
    with pytest.raises(UserError, match="only possible with --to onnx"):
        export(run, "torch", int8=True)


@pytest.mark.parametrize("module", ["onnxruntime", "onnxscript", "onnx"])
def test_a_missing_extra_is_named(
    module: str, run: Run, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[onnx\]'"):
        export(run, "onnx", tiny)


def test_export_command(capsys: pytest.CaptureFixture[str]) -> None:
    sample = ["--data", "sample", "--widths", "8", "8", "--epochs", "1", "--device", "cpu"]
    assert main(["train", *sample, "--quiet"]) == 0
    run = next(Path("runs").iterdir())
    assert main(["export", str(run), "--int8"]) == 0
    out = capsys.readouterr().out
    assert "Same predictions as the run on 105 pictures, in batches of 1, 2, 7" in out
    accuracy = Run(run).metrics()["test"]["fine_top1"]
    (row,) = [row.split() for row in out.splitlines() if row.startswith(" top-1 fine ")]
    assert row[2:4] == [f"{accuracy:.2%}"] * 2  # the predictor's and the exported model's
    assert "model-int8.onnx" in out
    assert main(["export", "nowhere"]) == 2


def test_export_of_a_run_on_coarse_labels(trained: Train, tiny: Dataset) -> None:
    run = trained(labels="coarse")
    found = export(run, "onnx", tiny)
    assert found.accuracy["exported"]["coarse_top1"] == run.metrics()["test"]["coarse_top1"]
    assert dataclasses.asdict(found)["parity"]
