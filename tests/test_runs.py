"""The list of the runs in a folder: correct values, every state, every format."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from support.making import unfinish

from hundredfold import Config, Dataset, Run, UserError, train
from hundredfold.cli.main import main
from hundredfold.runs.table import RunRow, final_scores, list_runs, sort_rows


def test_row_of_a_finished_run_has_its_recorded_values(run: Run) -> None:
    metrics = json.loads((run.path / "metrics.json").read_text())
    (row,) = list_runs("runs")
    assert row == RunRow(
        name=run.path.name,
        state="finished",
        recipe="tiny",
        labels="fine",
        seed=0,
        epochs_done=2.0,
        epochs=2.0,
        fine_top1=metrics["test"]["fine_top1"],
        coarse_top1=metrics["test"]["coarse_top1"],
        ece=metrics["test"]["ece"],
        seconds=metrics["seconds"],
        started=run.environment()["started"],
    )
    assert final_scores(run) == {
        "fine_top1": metrics["test"]["fine_top1"],
        "coarse_top1": metrics["test"]["coarse_top1"],
        "flip_fine_top1": metrics["test_flip"]["fine_top1"],
        "flip_coarse_top1": metrics["test_flip"]["coarse_top1"],
        "ece": metrics["test"]["ece"],
        "seconds": metrics["seconds"],
    }


def test_runs_on_coarse_labels_or_without_hierarchy_have_one_accuracy(
    tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, epochs=0.5)
    train(dataclasses.replace(config, name="coarse", labels="coarse"), tiny, quiet=True)
    flat = dataclasses.replace(tiny, superclasses=(), parents=())
    train(dataclasses.replace(config, name="flat"), flat, quiet=True)
    coarse, fine = list_runs("runs")
    assert coarse.fine_top1 is None
    assert coarse.coarse_top1 is not None
    assert fine.fine_top1 is not None
    assert fine.coarse_top1 is None
    assert fine.epochs_done == fine.epochs == 0.5


def test_unfinished_run_shows_its_progress(run: Run) -> None:
    unfinish(run)
    history = run.path / "history.jsonl"
    history.write_text(history.read_text().splitlines(keepends=True)[0])
    (row,) = list_runs("runs")
    assert (row.state, row.epochs_done, row.epochs) == ("unfinished", 1.0, 2.0)
    assert row.fine_top1 is row.coarse_top1 is row.ece is row.seconds is None
    history.unlink()  # it ended in its first epoch
    (row,) = list_runs("runs")
    assert (row.state, row.epochs_done) == ("unfinished", 0.0)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"colour": "red"}'),
        ("model.json", "[]"),
        ("environment.json", "\udcff"),
        ("environment.json", None),
        ("history.jsonl", '{"epoch": 1}\n'),
        ("metrics.json", ""),
    ],
)
def test_damaged_run_is_listed_with_the_reason(
    file: str, content: str | None, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / file).unlink()
    if content is not None:
        (run.path / file).write_text(content, errors="surrogateescape")
    (row,) = list_runs("runs")
    assert (row.name, row.state, row.recipe) == (run.path.name, "damaged", None)
    assert file in row.reason
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "damaged" in out
    assert row.reason in out


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("metrics.json", '"test_flip"', '"test_flop"'),
        ("metrics.json", '"seconds": ', '"seconds": "some", "": '),
        ("metrics.json", '"test": {', '"test": [], "": {'),
        ("history.jsonl", '"progress": 1.0', '"progress": "all"'),
    ],
)
def test_invalid_values_count_as_damage(file: str, before: str, after: str, run: Run) -> None:
    text = (run.path / file).read_text()
    assert before in text
    (run.path / file).write_text(text.replace(before, after))
    (row,) = list_runs("runs")
    assert row.state == "damaged"
    assert str(run.path.name) in row.reason


def test_run_of_an_earlier_version_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.path / "metrics.json"
    values = json.loads(path.read_text().replace("fine_top1", "top1"))
    del values["sha256"]
    path.write_text(json.dumps(values))
    (row,) = list_runs("runs")
    assert row.state == "damaged"
    other = shutil.copytree(run.path, "other")
    for command in ("report", "compare OTHER", "track --to tensorboard"):
        words = command.replace("OTHER", str(other)).split()
        assert main([*words, str(run)]) == 2
        error = capsys.readouterr().err
        assert "metrics.json" in error
        assert "earlier version" in error


def test_history_of_an_earlier_version_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinish(run)
    path = run.path / "history.jsonl"
    path.write_text(path.read_text().replace("fine_top1", "top1"))
    assert "written by an earlier version" in list_runs("runs")[0].reason
    assert main(["track", "--to", "tensorboard", str(run)]) == 2
    assert "written by an earlier version" in capsys.readouterr().err


def test_other_folders_and_files_are_not_listed(run: Run) -> None:
    (run.path.parent / "notes").mkdir()
    (run.path.parent / "notes" / "config.txt").touch()
    (run.path.parent / "README").write_text("{}")
    assert [row.name for row in list_runs(run.path.parent)] == [run.path.name]
    assert list_runs(run.path) == []


def test_missing_folder_is_refused() -> None:
    with pytest.raises(UserError, match=r"There is no folder nowhere: name one that"):
        list_runs("nowhere")
    assert main(["runs", "nowhere"]) == 2


def test_accuracies_are_sorted_descending_with_unknown_values_last() -> None:
    rows = [
        RunRow(name="a", state="damaged"),
        RunRow(name="b", state="finished", coarse_top1=0.5, seconds=3.0),
        RunRow(name="c", state="finished", coarse_top1=0.7, seconds=2.0),
        RunRow(name="d", state="finished", coarse_top1=0.5, seconds=1.0),
    ]

    def order(rows: list[RunRow]) -> str:
        return "".join(row.name for row in rows)

    assert order(sort_rows(rows, "coarse_top1")) == "cbda"
    assert order(sort_rows(rows, "seconds")) == "dcba"
    assert order(sort_rows(rows, "name")) == "abcd"
    assert order(sort_rows(rows, "fine_top1")) == "abcd"


def test_runs_command_writes_every_format(
    tiny: Dataset, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, epochs in (("概念_ж", 1), ("tiny", 0.5)):
        train(dataclasses.replace(tiny_config, name=name, epochs=epochs), tiny, quiet=True)
    (Path("runs") / "broken").mkdir()
    (Path("runs") / "broken" / "config.json").write_text('["a, b"]')
    rows = sort_rows(list_runs("runs"), "epochs")
    assert [row.recipe for row in rows] == ["tiny", "概念_ж", None]

    assert main(["runs", "--sort", "epochs", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [dataclasses.asdict(row) for row in rows]

    assert main(["runs", "--sort", "epochs", "--format", "csv"]) == 0
    head, *lines = csv.reader(io.StringIO(capsys.readouterr().out))
    for row, line in zip(rows, lines, strict=True):
        want = dataclasses.asdict(row)
        assert dict(zip(head, line, strict=True)) == {
            key: "" if value is None else str(value) for key, value in want.items()
        }

    assert main(["runs", "--where", "概念"]) == 0
    out = capsys.readouterr().out
    assert rows[1].name in out
    assert f"{rows[1].coarse_top1:.2%}" in out
    assert "1/1" in out
    assert rows[0].name not in out
    assert "broken" not in out


def test_runs_command_says_that_there_are_no_runs(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "--where", "fast"]) == 0
    assert "There are no runs with 'fast' in their name or recipe in runs." in (
        capsys.readouterr().out
    )
    assert main(["runs", str(run.path)]) == 0
    assert f"There are no runs in {run.path}." in capsys.readouterr().out
    assert main(["runs", "--where", "fast", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
