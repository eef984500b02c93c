"""Run directories: complete files, and clear errors about damaged ones."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.making import update_digests

from hundredfold import Config, Dataset, Predictor, Run, UserError
from hundredfold.models.info import ModelInfo
from hundredfold.runs.new_run import new_run
from hundredfold.support.files import write_atomic
from hundredfold.training.setup import make_setup


@pytest.fixture
def info(tiny: Dataset, tiny_config: Config) -> ModelInfo:
    """The description of a model without its weights."""
    return make_setup(tiny_config, tiny, torch.device("cpu")).info


def test_run_names_hold_recipe_time_and_seed_and_are_unique(
    info: ModelInfo, tmp_path: Path
) -> None:
    config = Config(name="x", seed=3, out=str(tmp_path))
    runs = [new_run(config, info, {"a": 1}) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.name.startswith("x-2") and "Z-s3" in run.path.name for run in runs)
    assert all(
        (run.config(), run.info(), run.environment()) == (config, info, {"a": 1}) for run in runs
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_error_names_the_folder_that_cannot_be_created(info: ModelInfo, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot create the folder .*file"):
        new_run(Config(out=str(tmp_path / "file")), info, {})


def test_atomic_writes_leave_no_temporary_files(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "file", b"x")
    with pytest.raises(TypeError):
        write_atomic(target, "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"new"


def test_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no run at"):
        _ = Run(tmp_path / "nowhere").config()
    with pytest.raises(UserError, match="is not a run, or not a complete one"):
        _ = Run(tmp_path).config()


def test_run_without_weights_says_why(run: Run) -> None:
    weights = (run.path / "weights.safetensors").read_bytes()
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"not a complete one: it lacks weights\.safetensors"):
        run.model()
    (run.path / "metrics.json").unlink()
    with pytest.raises(UserError, match="has no weights: its training ended before a checkpoint"):
        run.model()
    (run.path / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"it has weights, but lacks metrics\.json"):
        run.model()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100], ids=["empty", "other"])
def test_error_names_damaged_weights(run: Run, damage: bytes) -> None:
    (run.path / "weights.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match=r"weights\.safetensors is not what training wrote"):
        run.model()
    update_digests(run)
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        run.model()


def test_predictions_too_large_when_unpacked_are_refused(run: Run) -> None:
    path = run.path / "test_logits.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("logits.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    update_digests(run)
    with pytest.raises(UserError, match=r"test_logits.npz is damaged: it would unpack to"):
        _ = run.test_logits()


@pytest.mark.parametrize(
    "changes", [{"widths": [10**9] * 3}, {"image_size": 10**6}, {"widths": [16384, 16384, 16384]}]
)
def test_model_too_large_for_memory_is_refused(changes: dict[str, object], run: Run) -> None:
    path = run.path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    update_digests(run)
    with pytest.raises(UserError, match=r"needs|to another model"):
        run.model()


def test_weights_of_another_model_are_refused(run: Run) -> None:
    values = json.loads((run.path / "model.json").read_text())
    values["widths"] = [4, 4, 4]
    (run.path / "model.json").write_text(json.dumps(values))
    update_digests(run)
    with pytest.raises(UserError, match="belong to another model"):
        run.model()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_error_names_damaged_json(run: Run, text: str) -> None:
    (run.path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics.json is not"):
        _ = run.metrics()


def test_inconsistent_model_info_is_refused(run: Run) -> None:
    for changes in (
        {"parents": (0,)},
        {"parents": (9,) * 6},
        {"std": (1.0, 1.0, 0.0)},
        {"mean": ()},
    ):
        with pytest.raises(UserError):
            dataclasses.replace(run.info(), **changes)
    assert isinstance(run.info(), ModelInfo)


def test_prefixes_of_wrapped_models_are_removed_from_weight_names(run: Run, tiny: Dataset) -> None:
    want = Predictor.load(run).logits(list(tiny.test.images))
    path = run.path / "weights.safetensors"
    weights = load_file(path)
    for prefix in ("_orig_mod.", "module.", "module._orig_mod."):
        save_file({prefix + name: value for name, value in weights.items()}, path)
        update_digests(run)
        assert Predictor.load(run).logits(list(tiny.test.images)).equal(want)


def test_run_accepts_a_path_as_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    named: Any = Run(str(run.path))
    assert named == run
    assert named.config() == run.config()
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert Run(f"~/{run.path.name}").path == run.path
