"""Verification of finished runs: a file that training did not write is refused and named."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.stopping import interrupted

from hundredfold import Config, Dataset, Predictor, Run, UserError, evaluate, resume
from hundredfold.cli.main import main
from hundredfold.runs.table import list_runs

FILES = (
    "config.json", "environment.json", "model.json", "history.jsonl", "metrics.json",
    "test_logits.npz", "weights.safetensors",
)  # fmt: skip


def read_all(run: Run) -> None:
    """Read every file of a finished run."""
    run.model()
    _ = run.config(), run.environment(), run.history(), run.metrics(), run.test_logits()


def test_metrics_hold_the_digest_of_each_file(run: Run) -> None:
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
def test_every_changed_bit_is_noticed(name: str, run: Run) -> None:
    path = run.path / name
    good = path.read_bytes()
    for at in torch.randint(0, len(good), (20,), generator=torch.Generator().manual_seed(1)):
        content = bytearray(good)
        content[at] ^= 1 << int(at) % 8
        path.write_bytes(content)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            read_all(run)


def test_digest_in_capital_letters_is_refused(run: Run) -> None:
    path = run.path / "metrics.json"
    for name in ("metrics.json", "weights.safetensors"):
        text = path.read_text()
        known = json.loads(text)["sha256"][name]
        path.write_text(text.replace(known, known.upper()))
        with pytest.raises(UserError, match=r"metrics\.json is not what training wrote"):
            run.model()
        path.write_text(text)


def test_run_without_digests_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.path / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["sha256"]
    path.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="has no checksums: the run is damaged, or an earlier"):
        Predictor.load(run)
    assert main(["evaluate", str(run)]) == 2
    assert list_runs("runs")[0].state == "damaged"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "mark", ["config.json", "metrics.json", "weights.safetensors", "checkpoints"]
)
def test_folder_with_any_file_of_a_run_is_an_incomplete_run(
    mark: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the bundled model would be used instead."""
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


def test_error_names_missing_model_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save("picture.png")
    (run.path / "model.json").unlink()
    for command in (["predict"], ["explain"]):
        assert main([*command, str(run), "picture.png"]) == 2
        assert "not a complete one: it lacks model.json" in capsys.readouterr().err


def test_leftover_checkpoints_of_a_finished_run_are_deleted(run: Run, tiny: Dataset) -> None:
    checkpoints = run.path / "checkpoints"
    for use in (lambda: Predictor.load(run), lambda: resume(run, tiny)):
        checkpoints.mkdir()
        (checkpoints / "000000001-0.safetensors").touch()
        try:
            use()
        except UserError as error:
            assert "is finished" in str(error)
        assert not checkpoints.exists()


def test_run_with_damaged_checkpoints_does_not_start_over(
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


def test_error_names_a_changed_seed_or_model(tiny: Dataset, tiny_config: Config) -> None:
    run = interrupted(tiny_config, tiny, 3)
    path = run.path / "config.json"
    good = path.read_text()
    path.write_text(good.replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match=r"config\.json was changed: seed \(7 -> 0\)|0 -> 7"):
        resume(run, tiny)
    path.write_text(good)
    model = run.path / "model.json"
    model.write_text(model.read_text().replace('"a"', '"z"'))
    with pytest.raises(UserError, match=r"model\.json was changed after the last checkpoint"):
        run.model()
    with pytest.raises(UserError, match=r"model\.json"):
        resume(run, tiny)
