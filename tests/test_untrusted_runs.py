"""Runs from others: malicious files are refused, and nothing is written or sent elsewhere."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.making import unfinish, update_digests

from hundredfold import Dataset, Predictor, Run, UserError, evaluate, resume, write_report
from hundredfold.cli.main import main
from hundredfold.inference.logits import predict_logits
from hundredfold.runs.table import list_runs
from hundredfold.support.errors import DivergedError
from hundredfold.support.jsonio import parse_object


def test_outputs_that_are_not_finite_are_refused(run: Run, tiny: Dataset) -> None:
    weights = load_file(run.path / "weights.safetensors")
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name][0] = -1.0
    save_file(weights, run.path / "weights.safetensors")
    update_digests(run)
    for use in (
        lambda: Predictor.load(run)(tiny.test.images),
        lambda: evaluate(run, tiny),
    ):
        with pytest.raises(UserError, match="outputs are not finite numbers"):
            use()
    model = run.model()
    for value in (float("inf"), 1e31):
        torch.nn.init.constant_(list(model.parameters())[-1], value)
        with pytest.raises(DivergedError):
            predict_logits(model, tiny.test.images, run.info())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000, '{"a": ' * 200_000, '{"a": 1e999}', '{"a": NaN}', '{"a": [-Infinity]}',
        '{"a": ' + "9" * 400 + "}", '{"a": ' + "9" * 5000 + "}", '{"a": 1, "a": 1}',
        '{"a": {"b": 1, "b": 2}}', '{"a": -9007199254740993}',
    ],
    ids=lambda text: text[:9],
)  # fmt: skip
def test_malicious_json_is_refused(text: str, run: Run) -> None:
    with pytest.raises(UserError, match="it is not valid JSON"):
        parse_object(text, "it")
    good = Path(shutil.copytree(run.path, "runs/good"))
    for name in ("config.json", "metrics.json", "history.jsonl"):
        shutil.rmtree(run.path)
        shutil.copytree(good, run.path)
        (run.path / name).write_text(text)
        if name != "metrics.json":
            update_digests(run)
        rows = list_runs("runs")
        assert sorted(row.state for row in rows) == ["damaged", "finished"]
    assert parse_object('{"a": -9007199254740992, "b": 1e308}', "it")["a"] == -(2**53)


@pytest.mark.parametrize("value", ["1e-300", "1e300", "0", "-1"])
def test_temperature_out_of_bounds_is_refused(value: str, run: Run, tiny: Dataset) -> None:
    path = run.path / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"temperature": float(value)}))
    update_digests(run)
    with pytest.raises(UserError, match=r"needs a temperature of 0\.001 to 1000"):
        Predictor.load(run)


def test_impossible_test_predictions_are_refused(run: Run) -> None:
    test = run.test_logits()
    for changes in (
        {"logits": test["logits"].clone().fill_(float("nan"))},
        {"labels": test["labels"] + 1},
        {"labels": test["labels"].double()},
    ):
        run.finish(run.weights(), run.info(), run.metrics(), test | changes)
        with pytest.raises(UserError, match="do not match its other files"):
            write_report(run)


def test_special_files_are_not_read(run: Run) -> None:
    (run.path / "weights.safetensors").unlink()
    os.mkfifo(run.path / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors is not a file"):
        run.model()
    (run.path / "model.json").unlink()
    (run.path / "model.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"model\.json is not a file"):
        run.model()


def test_nothing_is_written_through_a_link(run: Run, tiny: Dataset, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "mine.unfinished").touch()
    picture = tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(picture)
    shutil.rmtree(run.path / "figures")
    for name, command, *more in (
        ("figures", "report"),
        ("figures", "explain", str(picture)),
        ("export", "export"),
        ("checkpoints", "resume"),
        ("tensorboard", "track", "--to", "tensorboard"),
    ):
        (run.path / name).symlink_to(elsewhere)
        assert main([command, str(run), *more]) == 2
        assert [path.name for path in elsewhere.iterdir()] == ["mine.unfinished"]
        (run.path / name).unlink()
    (run.path / "report.html").symlink_to(elsewhere / "page")
    with pytest.raises(UserError, match="is a link, so nothing is written there"):
        run.save_report("a page")
    (run.path / "export").mkdir()
    (run.path / "export" / "model.onnx").symlink_to(elsewhere / "model.onnx")
    assert main(["export", str(run)]) == 2
    assert len(list(elsewhere.iterdir())) == 1
    unfinish(run)
    shutil.rmtree(run.path / "figures", ignore_errors=True)
    (run.path / "figures").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link, so nothing is written there"):
        resume(run, tiny)
    assert (elsewhere / "mine.unfinished").exists()


@pytest.mark.parametrize("source", ["kaggle:x/y", "cifar100", "//server/share/photos"])
def test_data_that_a_run_names_is_not_downloaded_unasked(
    source: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        pytest.fail("it was fetched")

    monkeypatch.setattr("hundredfold.data.kaggle.download_dataset", fetch)
    monkeypatch.setattr("hundredfold.data.load.download", fetch)
    path = run.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": source}))
    update_digests(run)
    for command, code in (("evaluate", 2), ("report", 0), ("reproduce", 2)):
        assert main([command, str(run)]) == code
        assert f"name it: --data {source}" in "".join(capsys.readouterr()).replace("\n", " ")
