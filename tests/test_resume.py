"""Runs that are interrupted and resumed end as if they had not been interrupted."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.making import make_split
from support.stopping import Stopper, interrupted

from hundredfold import Config, Dataset, Run, UserError, evaluate, resume, train
from hundredfold.data.dataset import Split
from hundredfold.runs.checkpoints import newest_checkpoint, save_checkpoint, write_file
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state

RECIPES: dict[str, dict[str, Any]] = {
    "muon": {},
    "muon with lookahead": {"lookahead": 0.9, "bias_lr": 2.0},
    "sgd, sizes, sampling": {"optimizer": "sgd", "sizes": (24, 32), "balance": "sampling"},
    "adam, dropout, clipping": {
        "optimizer": "adam",
        "model": "resnet9",
        "widths": (4, 4, 8, 8),
        "schedule": "one_cycle",
        "clip_value": 0.1,
        "lr": 0.01,
    },
    "sgd without momentum, part of an epoch": {"optimizer": "sgd", "momentum": 0, "epochs": 1.5},
}


def without_times(run: Run) -> list[dict[str, Any]]:
    times = {"seconds": 0.0, "validation_seconds": 0.0}
    return [dataclasses.asdict(epoch) | times for epoch in run.history()]


def assert_same(run: Run, whole: Run) -> None:
    """Compare everything that two finished runs contain, except for times."""
    for name in ("weights.safetensors", "model.json", "test_logits.npz"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert without_times(run) == without_times(whole)
    assert run.metrics()["test_flip"] == whole.metrics()["test_flip"]


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
@pytest.mark.long
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    changes: dict[str, Any], tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, **changes)
    whole = train(config, tiny, quiet=True)
    steps = sum(len(epoch.loss) for epoch in whole.history())
    assert steps == (8 if config.epochs == 1.5 else 10)
    for step in range(1, steps + 1):  # every step of an epoch of 5 steps
        run = interrupted(config, tiny, step)
        torch.rand(step)  # the global generator must have no influence
        before = torch.get_rng_state()
        assert_same(resume(run, tiny, quiet=True), whole)
        assert torch.get_rng_state().equal(before)  # and must not change
        assert {path.name for path in run.path.iterdir()} == {
            path.name for path in whole.path.iterdir()
        }


def test_a_run_may_be_interrupted_several_times(tiny: Dataset, tiny_config: Config) -> None:
    whole = train(tiny_config, tiny, quiet=True)
    run = interrupted(tiny_config, tiny, 2)
    for steps in (1, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            resume(run, tiny, display=Stopper(steps))
    last = run.newest_checkpoint()
    assert last
    assert last.steps_done == 8
    assert_same(resume(run, tiny, quiet=True), whole)
    assert len(run.environment()["resumed"]) == 4
    seconds = run.metrics()["seconds"]
    assert seconds > run.metrics()["train_seconds"] > sum(e.seconds for e in run.history()) * 0.99


def test_an_interrupted_run_can_be_used_before_it_is_resumed(
    tiny: Dataset, tiny_config: Config
) -> None:
    run = interrupted(tiny_config, tiny, 7)
    assert not run.finished
    assert len(run.history()) == 1
    assert evaluate(run, tiny)["test_pictures"] == 24
    last = run.newest_checkpoint()
    assert last
    for name, value in run.model().state_dict().items():
        assert value.equal(last.tensors[f"model.{name}"])


def test_a_run_without_a_checkpoint_starts_again_in_its_folder(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tiny_config, tiny, quiet=True)
    run = interrupted(tiny_config, tiny, 3)
    shutil.rmtree(run.path / "checkpoints")
    assert_same(resume(run, tiny), whole)
    assert "no checkpoint yet: it starts again" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    damage: str, tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(tiny_config, checkpoint="2steps")
    whole = train(config, tiny, quiet=True)
    run = interrupted(config, tiny, 7)
    before, newest = sorted((run.path / "checkpoints").glob("*.safetensors"))
    assert [int(path.name.split("-")[0]) for path in (before, newest)] == [6, 7]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-9], "flipped": content, "empty": bytearray()}
    newest.write_bytes(damaged[damage])
    assert_same(resume(run, tiny), whole)
    out = capsys.readouterr().out
    assert f"{newest} is damaged: its checksum is wrong" in out
    assert "starts again" not in out


def test_two_good_checkpoints_are_kept_besides_damaged_ones(
    tmp_path: Path, tiny: Dataset, tiny_config: Config
) -> None:
    setup = make_setup(tiny_config, tiny, torch.device("cpu"))
    some = dataclasses.replace(first_state(setup).checkpoint(setup), tensors={"x": torch.arange(3)})
    for step in (5, 6):
        save_checkpoint(tmp_path, dataclasses.replace(some, steps_done=step))
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, dataclasses.replace(some, steps_done=step))
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == ["000000002", "000000003"]
    found = newest_checkpoint(tmp_path, print)
    assert found
    assert found.tensors["x"].tolist() == [0, 1, 2]
    assert dataclasses.replace(found, tensors={}) == dataclasses.replace(
        some, steps_done=3, tensors={}
    )
    assert newest_checkpoint(tmp_path / "nowhere", print) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("progress", 2, "is not a checkpoint of this version"),
        ("steps_done", "x", "is not a checkpoint of this version"),
        ("partial_epoch", {"lr": [0.1]}, "is not a checkpoint of this version"),
        ("partial_epoch", [], "The current epoch in .* is not a JSON object"),
        ("history", [{}], "The history in .* lacks the fields"),
        ("clock", {"end": 1, "seconds": [], "began": 0, "expected": 0}, "is not a checkpoint of"),
        ("info", None, "The model in .* is not a JSON object"),
        ("config", {"lr": 1}, "another version of hundredfold: its configuration has no balance"),
        ("config", {"colour": 1}, "does not know: colour"),
        ("", None, "is not a checkpoint of this version"),
    ],
)
def test_a_checkpoint_of_another_program_is_refused(
    name: str, value: Any, said: str, tiny: Dataset, tiny_config: Config, tmp_path: Path
) -> None:
    setup = make_setup(tiny_config, tiny, torch.device("cpu"))
    checkpoint = dataclasses.replace(first_state(setup).checkpoint(setup), tensors={})
    save_checkpoint(tmp_path / "good", checkpoint)
    (path,) = (tmp_path / "good").iterdir()
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["checkpoint"])
    text = json.dumps(values | {name: value} if name else {})
    write_file(tmp_path / "changed", 0, {}, text)
    with pytest.raises(UserError, match=said):
        newest_checkpoint(tmp_path / "changed", print)


def test_a_finished_run_is_refused(tiny: Dataset, tiny_config: Config) -> None:
    run = train(dataclasses.replace(tiny_config, epochs=1), tiny, quiet=True)
    with pytest.raises(UserError, match=r"is finished and cannot be resumed"):
        resume(run, tiny)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.01}, r"config.json was changed: lr \(0.05 -> 0.01\)"),
        ({"widths": [8, 16, 8]}, r"config.json was changed: widths \(\(8, 16, 16\) -> \(8,"),
        ({"out": "elsewhere", "checkpoint": "9min"}, ""),
    ],
)
def test_another_configuration_is_refused(
    changes: dict[str, Any], said: str, tiny: Dataset, tiny_config: Config
) -> None:
    run = interrupted(tiny_config, tiny, 3)
    path = run.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    if not said:
        assert resume(run, tiny, quiet=True).finished
        return
    with pytest.raises(UserError, match=said):
        resume(run, tiny)


def test_other_data_is_refused_and_another_machine_is_reported(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted(tiny_config, tiny, 3)
    other = dataclasses.replace(tiny, train=make_split(96, 6, seed=9))
    with pytest.raises(UserError, match="its digest differs"):
        resume(run, other)
    path = run.path / "environment.json"
    other_machine = {"threads": 99, "torch": "1.0", "convolutions": "sums"}
    path.write_text(json.dumps(run.environment() | other_machine))
    assert resume(run, tiny).finished
    out = capsys.readouterr().out
    assert "convolutions was sums when the run started, and is " in out
    assert f"threads was 99 when the run started, and is {torch.get_num_threads()} now: the" in out
    assert "torch was 1.0 when the run started" in out


def test_two_processes_never_train_the_same_run(tiny: Dataset, tiny_config: Config) -> None:
    run = interrupted(tiny_config, tiny, 3)
    code = "import sys, pathlib; from hundredfold import Run\n"
    code += "with Run(pathlib.Path(sys.argv[1])).lock(): print('locked', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="Another process is training"):
            resume(run, tiny)
        other.kill()  # the system releases the lock
    assert resume(run, tiny, quiet=True).finished


def test_a_resumed_run_with_a_budget_gets_the_time_that_was_left(
    tiny_config: Config, tmp_path: Path
) -> None:
    data = Dataset(
        source="some", train=make_split(4000, 4), test=make_split(8, 4), classes=tuple("abcd")
    )
    config = dataclasses.replace(tiny_config, budget="6s", out=str(tmp_path / "clock"))
    run = interrupted(config, data, 3)
    last = run.newest_checkpoint()
    assert last
    assert 0 < last.progress < 1
    assert last.clock
    assert 0 < last.clock.end < 6
    assert resume(run, data, quiet=True).history()[-1].progress == 1
    assert run.metrics()["seconds"] > last.elapsed


def test_mapped_pictures_resume_to_the_same_bits(
    tiny: Dataset, tiny_config: Config, tmp_path: Path
) -> None:
    """Pictures in a memory-mapped file, as in large datasets."""
    path = tmp_path / "pixels"
    path.write_bytes(tiny.train.images.numpy().tobytes())
    mapped = torch.from_file(str(path), size=tiny.train.images.numel(), dtype=torch.uint8)
    store = mapped.view(tiny.train.images.shape)
    large = dataclasses.replace(tiny, train=Split(store, tiny.train.labels))
    whole = train(tiny_config, tiny, quiet=True)
    assert_same(resume(interrupted(tiny_config, large, 4), large, quiet=True), whole)
