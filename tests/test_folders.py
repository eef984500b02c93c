"""Custom datasets: reading, caching, splitting, and training."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.making import Load
from support.pets import picture, pictures

from hundredfold import Config, Dataset, Split, evaluate, train
from hundredfold.cli.main import main
from hundredfold.data import dataset
from hundredfold.data.collection import choose_size
from hundredfold.data.encoded import EncodedPictures
from hundredfold.data.split import choose_test_pictures, unstable_classes
from hundredfold.inference.predict import Predictor
from hundredfold.support.errors import UserError
from hundredfold.support.files import cache_folder


def test_pixels_equal_those_of_the_files(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    found = load(root)
    for split in found.splits.values():
        for i, name in enumerate(split.names):
            with Image.open(root / name) as image:
                want = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            assert split.images[i].equal(want)
    again = load(root)  # from the cache
    assert again.digest() == found.digest()


def test_changed_files_and_damaged_caches_are_read_again(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 1})
    before = load(root)
    changed = picture(root / "train/a/train-a-0.png")
    os.utime(changed, ns=(1, 1))
    after = load(root)
    assert not after.train.images[0].equal(before.train.images[0])
    for file in (cache_folder() / "pictures").iterdir():
        file.write_bytes(b"damaged")
    assert load(root).digest() == after.digest()


def test_a_folder_without_splits_holds_out_a_fifth_by_content(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"cat": 40, "dog": 60})
    first = load(root)
    assert 10 <= len(first.test) <= 30 and len(first.train) + len(first.test) == 100
    assert "are held out for the test" in said[0]
    pictures(root, {"cat/more": 0, "hen": 30})
    (root / "dog/dog-3.png").rename(root / "dog/another name.png")
    second = load(root)
    moved = set(first.test.names) ^ {n for n in second.test.names if not n.startswith("hen")}
    assert moved <= {"dog/dog-3.png", "dog/another name.png"}


def copies_within_classes(digests: dict[int, str], labels: dict[int, str]) -> dict[int, int]:
    first: dict[tuple[str, str], int] = {}
    return {i: first.setdefault((labels[i], digests[i]), i) for i in digests}


@given(st.dictionaries(st.integers(0, 99), st.tuples(st.integers(0, 5), st.integers(0, 2**32))))
def test_every_class_keeps_a_picture_and_copies_stay_together(
    drawn: dict[int, tuple[int, int]],
) -> None:
    digests = {i: f"{value:032x}"[::-1] for i, (_, value) in drawn.items()}
    labels = {i: f"class {label}" for i, (label, _) in drawn.items()}
    held = choose_test_pictures(digests, labels, copies_within_classes(digests, labels))
    for label in set(labels.values()):
        members = [i for i in labels if labels[i] == label]
        test, rest = ({digests[i] for i in members if (i in held) == where} for where in (1, 0))
        assert rest and not test & rest
        assert test or len({digests[i] for i in members}) == 1


Drawn = st.dictionaries(
    st.integers(0, 99), st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=30
)


@given(Drawn, Drawn)
def test_added_pictures_move_at_most_one_in_each_small_class(
    first: dict[int, tuple[int, int]], more: dict[int, tuple[int, int]]
) -> None:
    def places(
        drawn: dict[int, tuple[int, int]],
    ) -> tuple[dict[tuple[str, str], bool], list[str]]:
        digests = {i: f"{value * 0x15555555:08x}" for i, (_, value) in drawn.items()}
        labels = {i: f"class {label}" for i, (label, _) in drawn.items()}
        copies = copies_within_classes(digests, labels)
        held = choose_test_pictures(digests, labels, copies)
        where = {(labels[i], digests[i]): i in held for i in drawn}
        assert all(where[labels[i], digests[i]] == (i in held) for i in drawn)  # copies agree
        return where, unstable_classes(digests, labels, copies)

    before, moving = places(first)
    after, _ = places(first | {i + 100: drawn for i, drawn in more.items()})
    moved = [label for (label, digest), held in before.items() if after[label, digest] != held]
    assert set(moved) <= set(moving)
    assert len(moved) == len(set(moved))  # one content in each class


def test_unusable_files_are_reported_and_left_out(
    tmp_path: Path, load: Load, said: list[str], tiny_config: Config
) -> None:
    root = pictures(tmp_path / "pets", {"cat": 9, "dog": 9})
    whole = picture(root / "cat/cut.jpg", 64).read_bytes()
    (root / "cat/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "dog/text.png").write_text("not a picture")
    (root / "dog/empty.jpg").touch()
    with pytest.raises(UserError, match=r"3 pictures of .* cannot be used: .*cut\.jpg"):
        load(root, strict=True)
    found = load(root)
    assert len(found.train) + len(found.test) == 18
    for name in ("cat/cut.jpg (cannot be read", "dog/text.png (cannot be", "dog/empty.jpg"):
        assert name in said[0]
    run = train(dataclasses.replace(tiny_config, epochs=1, batch_size=8), found, quiet=True)
    assert run.finished


@pytest.mark.parametrize("counts", [{"a": 2, "b": 1}, {"a": 9, "b": 8}, {"a": 30, "b": 1}])
def test_training_works_on_very_few_pictures(
    counts: dict[str, int], tmp_path: Path, load: Load, tiny_config: Config
) -> None:
    found = load(pictures(tmp_path / "pets", counts))
    one_less = max(2, len(found.train) - 1)
    config = dataclasses.replace(tiny_config, epochs=2, batch_size=one_less, balance="loss")
    run = train(config, found, quiet=True)
    assert all(np.isfinite(value) for value in run.metrics()["test"].values())
    assert "fine_top5" not in run.metrics()["test"]


def test_a_run_on_a_folder_evaluates_and_predicts_class_names(
    tmp_path: Path, load: Load, tiny_config: Config
) -> None:
    root = pictures(tmp_path / "pets", {"cat": 12, "dog": 12})
    for path in root.rglob("*.png"):
        Image.new("RGB", (80, 70), "red" if "cat" in path.name else "blue").save(path)
        os.utime(path, ns=(len(str(path)), hash(path) % 2**40))
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        with Image.open(path) as image:
            image.putpixel((0, 0), (i, i, i))
            image.save(path)
    found = load(root, size=48)
    config = dataclasses.replace(tiny_config, epochs=8, batch_size=8, data=str(root), size=48)
    run = train(config, found, quiet=True)
    assert run.info().classes == ("cat", "dog") and run.info().image_size == 48
    assert evaluate(run)["test"] == run.metrics()["test"]
    assert Predictor.load(run)(Image.new("RGB", (300, 200), "blue")).label == "dog"


def test_mapped_sets_give_the_same_results(
    tmp_path: Path,
    load: Load,
    said: list[str],
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = pictures(tmp_path / "pets", {"train/a": 9, "train/b": 8, "test/a": 2, "test/b": 2})
    (root / "train/a/bad.png").write_text("bad")
    config = dataclasses.replace(tiny_config, epochs=2, batch_size=6, validation=0.25)
    small = load(root)
    want = train(config, small, quiet=True)
    monkeypatch.setattr(dataset, "MAX_IN_MEMORY", 1000)
    monkeypatch.setattr("hundredfold.data.pixel_cache.MAX_IN_MEMORY", 1000)
    for path in (cache_folder() / "pictures").iterdir():
        path.unlink()
    monkeypatch.setattr("hundredfold.data.decode.MIN_FOR_PROCESSES", 10)  # in processes too
    for large in (load(root), load(root)):  # decoded, then cached
        assert large.train.rows is not None and large.digest() == small.digest()
        run = train(config, large, quiet=True)
        weights = [(r.path / "weights.safetensors").read_bytes() for r in (run, want)]
        assert weights[0] == weights[1]
        assert run.metrics()["test"] == want.metrics()["test"]
    for path in (cache_folder() / "pictures").iterdir():
        path.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    said.clear()
    assert isinstance(load(root).train.store, EncodedPictures)
    need = "decoded whenever they are needed, as they would take 67.6 kB and the cache may take 9 b"
    assert need in said[-1]


@pytest.mark.parametrize("side, want", [(20, 32), (33, 32), (70, 64), (100, 96), (500, 128)])
def test_the_median_picture_fills_the_chosen_size(side: int, want: int, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png", s) for i, s in enumerate((5, side, side, 900))]
    assert choose_size([*paths, tmp_path / "none.png"]) == want


def test_cifar100_as_folders_trains_to_the_same_bits(
    cifar: Dataset, tmp_path: Path, load: Load, tiny_config: Config
) -> None:
    subset = dataclasses.replace(
        cifar,
        train=Split(cifar.train.images[:2000], cifar.train.labels[:2000]),
        test=Split(cifar.test.images[:500], cifar.test.labels[:500]),
    )
    for name, split in subset.splits.items():
        for i, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            above = subset.superclasses[subset.parents[label]]
            path = tmp_path / name / above / subset.classes[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    found = load(tmp_path)
    assert found.digest() == subset.digest()
    config = dataclasses.replace(tiny_config, batch_size=256, balance="sampling")
    runs = [train(config, data, quiet=True) for data in (subset, found)]
    weights = [(run.path / "weights.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    assert runs[0].metrics()["test"] == runs[1].metrics()["test"]


def test_the_commands_accept_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root = pictures(tmp_path / "my pets", {"cat": 20, "dog": 20})
    (root / "dog/bad.jpg").write_text("bad")
    flags = ["--data", str(root), "--widths", "8", "8", "--device", "cpu", "--epochs", "2"]
    assert main(["train", *flags]) == 0
    said = capsys.readouterr().out
    assert "dog/bad.jpg" in said and "2 fine classes" in said and "steps of 16" in said
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["predict", str(run), str(root / "cat"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("cat-") == 20
    assert main(["evaluate", str(run)]) == 0
    assert "equal the recorded ones to the last digit" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "cat/cat-" in page or "dog/dog-" in page
    assert main(["explore", str(root)]) == 0
    assert main(["train", *flags, "--strict"]) == 2
    assert "Repair or remove these files" in capsys.readouterr().err
