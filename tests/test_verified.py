"""A finished run is verified: what is not what training wrote is refused, and named."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.making import reseal, unfinish
from support.stopping import interrupted

from hundredfold import Config, Dataset, Predictor, Run, UserError, evaluate, resume, write_report
from hundredfold.cli.main import main
from hundredfold.inference.logits import predict_logits
from hundredfold.runs.bundled import BY_DEFAULT, find_run
from hundredfold.runs.table import list_runs
from hundredfold.support.errors import DivergedError
from hundredfold.support.jsonio import parse_object

FILES = (
    "config.json", "environment.json", "model.json", "history.jsonl", "metrics.json",
    "test_logits.npz", "weights.safetensors",
)  # fmt: skip


def read_all(run: Run) -> None:
    """Read everything that a finished run holds."""
    run.model()
    _ = run.config(), run.environment(), run.history(), run.metrics(), run.test_logits()


def test_the_metrics_hold_the_digest_of_each_file(run: Run) -> None:
    text = (run.path / "metrics.json").read_text()
    digests = json.loads(text)["sha256"]
    assert digests.keys() == set(FILES)
    for name in set(FILES) - {"metrics.json"}:
        assert digests[name] == hashlib.sha256((run.path / name).read_bytes()).hexdigest()
    own = digests["metrics.json"]
    assert hashlib.sha256(text.replace(own, "0" * 64).encode()).hexdigest() == own
    assert "sha256" not in run.metrics()
    read_all(run)


@pytest.mark.parametrize("name", FILES)
def test_a_bit_anywhere_is_noticed(name: str, run: Run) -> None:
    path = run.path / name
    good = path.read_bytes()
    for at in torch.randint(0, len(good), (20,), generator=torch.Generator().manual_seed(1)):
        content = bytearray(good)
        content[at] ^= 1 << int(at) % 8
        path.write_bytes(content)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            read_all(run)


def test_a_letter_of_a_digest_in_capitals_is_noticed(run: Run) -> None:
    path = run.path / "metrics.json"
    for name in ("metrics.json", "weights.safetensors"):
        text = path.read_text()
        known = json.loads(text)["sha256"][name]
        path.write_text(text.replace(known, known.upper()))
        with pytest.raises(UserError, match=r"metrics\.json is not what training wrote"):
            run.model()
        path.write_text(text)


def test_a_run_without_digests_is_not_used(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.path / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["sha256"]
    path.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="has no checksums: the run is damaged, or of an earlier"):
        Predictor.load(run)
    assert main(["evaluate", str(run)]) == 2
    assert list_runs("runs")[0].state == "damaged"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "mark", ["config.json", "metrics.json", "weights.safetensors", "checkpoints"]
)
def test_a_folder_with_something_of_a_run_is_a_run(
    mark: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that no other model answers in its place."""
    Image.new("RGB", (32, 32)).save("picture.png")
    folder = Path("runs/part")
    folder.mkdir()
    if mark == "checkpoints":
        (folder / mark).mkdir()
    else:
        shutil.copy(run.path / mark, folder)
    shutil.copy("picture.png", folder)
    assert main(["predict", str(folder), "picture.png"]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "lacks" in said.err
    row = next(row for row in list_runs("runs") if row.name == "part")
    assert row.state == "damaged"


def test_a_run_without_model_json_names_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save("picture.png")
    (run.path / "model.json").unlink()
    for command in (["predict"], ["explain"]):
        assert main([*command, str(run), "picture.png"]) == 2
        assert "not a whole one: it lacks model.json" in capsys.readouterr().err


def test_the_bundled_model_says_that_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save("picture.png")
    assert main(["predict", "picture.png", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert BY_DEFAULT in said.err
    assert len(json.loads(said.out)) == 1
    assert main(["predict", "strong", "picture.png"]) == 0
    assert BY_DEFAULT not in capsys.readouterr().err


def test_what_is_damaged_of_the_bundled_model_is_copied_again() -> None:
    run = find_run("strong")
    path = run.path / "weights.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    (run.path / "model.json").unlink()
    assert find_run("strong") == run
    assert path.read_bytes() == good
    read = Predictor.load("strong")
    assert len(read.info.classes) == 100


def test_answers_that_are_not_numbers_are_refused(run: Run, tiny: Dataset) -> None:
    weights = load_file(run.path / "weights.safetensors")
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name][0] = -1.0
    save_file(weights, run.path / "weights.safetensors")
    reseal(run)
    for use in (
        lambda: Predictor.load(run)(tiny.test.images),
        lambda: evaluate(run, tiny),
    ):
        with pytest.raises(UserError, match="does not answer in finite numbers"):
            use()
    model = run.model()
    for value in (float("inf"), 1e31):
        torch.nn.init.constant_(list(model.parameters())[-1], value)
        with pytest.raises(DivergedError):
            predict_logits(model, tiny.test.images, run.info())


def test_names_that_wrappers_gave_to_weights_are_known(run: Run, tiny: Dataset) -> None:
    want = Predictor.load(run).logits(list(tiny.test.images))
    path = run.path / "weights.safetensors"
    weights = load_file(path)
    for prefix in ("_orig_mod.", "module.", "module._orig_mod."):
        save_file({prefix + name: value for name, value in weights.items()}, path)
        reseal(run)
        assert Predictor.load(run).logits(list(tiny.test.images)).equal(want)


def test_a_run_may_be_named_by_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    named: Any = Run(str(run.path))
    assert named == run
    assert named.config() == run.config()
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert Run(f"~/{run.path.name}").path == run.path


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000, '{"a": ' * 200_000, '{"a": 1e999}', '{"a": NaN}', '{"a": [-Infinity]}',
        '{"a": ' + "9" * 400 + "}", '{"a": ' + "9" * 5000 + "}", '{"a": 1, "a": 1}',
        '{"a": {"b": 1, "b": 2}}', '{"a": -9007199254740993}',
    ],
    ids=lambda text: text[:9],
)  # fmt: skip
def test_json_monsters_are_refused(text: str, run: Run) -> None:
    with pytest.raises(UserError, match="it is not valid JSON"):
        parse_object(text, "it")
    good = Path(shutil.copytree(run.path, "runs/good"))
    for name in ("config.json", "metrics.json", "history.jsonl"):
        shutil.rmtree(run.path)
        shutil.copytree(good, run.path)
        (run.path / name).write_text(text)
        if name != "metrics.json":
            reseal(run)
        rows = list_runs("runs")
        assert sorted(row.state for row in rows) == ["damaged", "finished"]
    assert parse_object('{"a": -9007199254740992, "b": 1e308}', "it")["a"] == -(2**53)


@pytest.mark.parametrize("value", ["1e-300", "1e300", "0", "-1"])
def test_a_temperature_out_of_bounds_is_refused(value: str, run: Run, tiny: Dataset) -> None:
    path = run.path / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"temperature": float(value)}))
    reseal(run)
    with pytest.raises(UserError, match=r"needs a temperature of 0\.001 to 1000"):
        Predictor.load(run)


def test_predictions_of_the_test_set_must_be_possible(run: Run) -> None:
    test = run.test_logits()
    for changes in (
        {"logits": test["logits"].clone().fill_(float("nan"))},
        {"labels": test["labels"] + 1},
        {"labels": test["labels"].double()},
    ):
        run.finish(run.weights(), run.info(), run.metrics(), test | changes)
        with pytest.raises(UserError, match="do not fit the rest of it"):
            write_report(run)


def test_what_is_no_regular_file_is_not_read(run: Run) -> None:
    (run.path / "weights.safetensors").unlink()
    os.mkfifo(run.path / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors is not a file"):
        run.model()
    (run.path / "model.json").unlink()
    (run.path / "model.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"model\.json is not a file"):
        run.model()


def test_checkpoints_go_where_the_end_of_training_was_killed_before(
    run: Run, tiny: Dataset
) -> None:
    checkpoints = run.path / "checkpoints"
    for use in (lambda: Predictor.load(run), lambda: resume(run, tiny)):
        checkpoints.mkdir()
        (checkpoints / "000000001-0.safetensors").touch()
        try:
            use()
        except UserError as error:
            assert "is finished" in str(error)
        assert not checkpoints.exists()


def test_a_run_with_damaged_checkpoints_does_not_begin_again(
    tiny: Dataset, tiny_config: Config, said: list[str]
) -> None:
    run = interrupted(tiny_config, tiny, 7)
    for path in (run.path / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    for use in (lambda: resume(run, tiny, quiet=True), lambda: evaluate(run, tiny)):
        with pytest.raises(UserError, match=r"All checkpoints in .*checkpoints are damaged"):
            use()
    shutil.rmtree(run.path / "checkpoints")
    assert resume(run, tiny, quiet=True).finished


def test_a_changed_seed_and_a_changed_model_are_named(tiny: Dataset, tiny_config: Config) -> None:
    run = interrupted(tiny_config, tiny, 3)
    path = run.path / "config.json"
    good = path.read_text()
    path.write_text(good.replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match=r"config\.json was changed: seed \(7 -> 0\)|0 -> 7"):
        resume(run, tiny)
    path.write_text(good)
    model = run.path / "model.json"
    model.write_text(model.read_text().replace('"a"', '"z"'))
    with pytest.raises(UserError, match=r"model\.json is not what it was at the last checkpoint"):
        run.model()
    with pytest.raises(UserError, match=r"model\.json"):
        resume(run, tiny)


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
def test_no_run_sends_a_command_to_the_network(
    source: str, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        pytest.fail("it was fetched")

    monkeypatch.setattr("hundredfold.data.kaggle.fetch", fetch)
    monkeypatch.setattr("hundredfold.data.download", fetch)
    path = run.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": source}))
    reseal(run)
    for command, code in (("evaluate", 2), ("report", 0), ("reproduce", 2)):
        assert main([command, str(run)]) == code
        assert f"name it: --data {source}" in "".join(capsys.readouterr()).replace("\n", " ")
