"""The folder that is published on the Hub, and the errors if the Hub cannot be reached."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from support.making import Train, update_digests
from support.stopping import interrupted

from hundredfold import Config, Dataset, Predictor, Run, UserError
from hundredfold.cli.main import main
from hundredfold.export.hub import card, push, write_folder
from hundredfold.runs.table import list_runs
from hundredfold.support.jsonio import to_json


def test_published_folder_predicts_like_the_run_and_reveals_no_path(
    trained: Train, tiny: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    config = dataclasses.replace(
        run.config(),
        data="/home/me/photos",
        model="timm:resnet18",
        weights="/home/me/w.pth",
        widths=(),
    )
    (run.path / "config.json").write_text(to_json(config))
    update_digests(run)
    assert main(["push", str(run.path), "me/tiny", "--folder", "out"]) == 0
    assert "out" in capsys.readouterr().out
    names = {file.name for file in Path("out").iterdir()}
    assert names == {
        "README.md", "config.json", "metrics.json", "model.json", "weights.safetensors",
    }  # fmt: skip
    image = tiny.test.images[0]
    assert Predictor.load("out")(image) == Predictor.load(run)(image)
    card = Path("out/README.md").read_text()
    assert card.startswith("---\nlibrary_name: hundredfold\n")
    assert f"{run.metrics()['test']['fine_top1']:.2%}" in card
    assert f"{run.metrics()['test_flip']['coarse_top1']:.2%}" in card
    assert 'snapshot_download("me/tiny")' in card
    assert "`a`, `b`, `c`, `d`, `e`, `f`." in card
    for file in Path("out").iterdir():
        assert b"/home" not in file.read_bytes()
    assert json.loads(Path("out/config.json").read_text())["out"] == "runs"
    assert main(["push", str(run.path), "me/tiny", "--folder", str(run.path)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_what_is_published_has_no_key_of_an_address(trained: Train) -> None:
    run = trained()
    config = dataclasses.replace(run.config(), data="https://example.org/pets.zip?key=SECRET")
    (run.path / "config.json").write_text(to_json(config))
    update_digests(run)
    folder = write_folder(run, "me/tiny", Path("out"))
    assert main(["report", str(run.path)]) == 0
    for file in (*folder.iterdir(), run.path / "report.html"):
        assert b"SECRET" not in file.read_bytes()
    assert "pets.zip" in (folder / "README.md").read_text()
    assert "https://example.org/pets.zip" in (run.path / "report.html").read_text()


def test_a_published_run_is_listed_as_finished(run: Run, tmp_path: Path) -> None:
    write_folder(run, "me/pets", tmp_path / "published" / "pets")
    (row,) = list_runs(tmp_path / "published")
    assert (row.state, row.started, row.epochs_done) == ("finished", None, run.config().epochs)
    assert row.fine_top1 == run.metrics()["test"]["fine_top1"]


def test_names_of_classes_are_no_markup_in_the_card(trained: Train, tiny: Dataset) -> None:
    name = "a` [free](https://evil.example) `"
    odd = dataclasses.replace(tiny, classes=(name, *tiny.classes[1:]))
    assert f"`{name.replace('`', chr(39))}`, `" in card(trained(odd), "me/pets")


def test_card_of_a_run_on_coarse_labels_lists_the_accuracy_once(trained: Train) -> None:
    run = trained(labels="coarse")
    accuracy = run.metrics()["test"]["coarse_top1"]
    rows = [line for line in card(run, "me/tiny").splitlines() if f"{accuracy:.2%} |" in line]
    assert [row.split("|")[1].strip() for row in rows] == ["top-1 coarse"]


def test_unfinished_run_is_not_published(tiny: Dataset, tiny_config: Config) -> None:
    with pytest.raises(UserError, match="is not finished"):
        write_folder(interrupted(tiny_config, tiny, 2), "me/tiny", Path("out"))


def test_push_without_a_network_is_reported(
    trained: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "none")
    assert main(["push", str(run.path), "me/tiny"]) == 2
    assert "The Hub did not accept me/tiny" in capsys.readouterr().err
    assert main(["push", str(run.path), "no name at all"]) == 2
    assert "The Hub did not accept no name at all" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[hub\]'"):
        push(run, "me/tiny")
