"""Written files: permissions, leftovers, and paths that start with ~."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hundredfold import Config, Dataset, Predictor, Run, UserError
from hundredfold.cli.main import main
from hundredfold.runs.new_run import new_run
from hundredfold.support.files import ABANDONED, UNFINISHED, save_file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(params=[0o077, 0o027, 0o022, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Permissions that new files do not get."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_leftovers_of_killed_processes_are_removed_on_writing() -> None:
    names = ("a.csv", "b.csv")
    for name in names:
        for age in (2, 2 * ABANDONED):
            temporary = Path(f".{name}.{age}{UNFINISHED}")
            temporary.touch()
            os.utime(temporary, (time.time() - age,) * 2)
    save_file(Path("a.csv"), "a,b\n")
    assert {path.name for path in Path().iterdir()} == {
        "a.csv",
        f".a.csv.2{UNFINISHED}",  # its process may still be running
        f".b.csv.2{UNFINISHED}",
        f".b.csv.{2 * ABANDONED}{UNFINISHED}",
    }


def test_files_and_run_folders_follow_the_umask(umask: int, run: Run, tiny_config: Config) -> None:
    save_file(Path("table.csv"), "a,b\n")
    assert Path("table.csv").stat().st_mode & 0o777 == 0o666 & ~umask
    begun = new_run(dataclasses.replace(tiny_config, name="rights"), run.info(), {})
    assert begun.path.stat().st_mode & 0o777 == 0o777 & ~umask
    assert (begun.path / "config.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_failed_write_leaves_no_file() -> None:
    Path("there").mkdir()
    with pytest.raises(UserError, match="Cannot write there"):
        save_file(Path("there"), "a file instead of a folder")
    assert [path.name for path in Path().iterdir()] == ["there"]


def test_every_command_expands_the_home_folder(
    home: Path, run: Run, tiny: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run.path.rename(home / "run")
    Image.new("RGB", (32, 32), "orange").save(home / "one.png")
    predictor = Predictor.load("~/run")
    assert predictor("~/one.png") == predictor(home / "one.png") == predictor(Path("~/one.png"))
    for arguments in (
        ["predict", "~/run", "~/one.png"],
        ["predict", "~/one.png"],
        ["predict", "~/run", "~"],
        ["explain", "~/run", "~/one.png", "--like", "0"],
        ["report", "~/run"],
        ["track", "~/run", "--to", "nowhere"],
        ["reproduce", "~/run"],
        ["evaluate", "~/run"],
        [
            "lr-find",
            "~/run/config.json",
            "--steps",
            "10",
            "--figure",
            "~/figure.png",
            "--data",
            "sample",
        ],
    ):
        main(arguments)
        assert "~" not in capsys.readouterr().err
    assert (home / "run" / "report.html").exists()
    assert (home / "figure.png").exists()
    assert not Path("~").exists()
