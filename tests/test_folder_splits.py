"""Splits of folders and tables: groups, copies and near duplicates stay on one side."""

import dataclasses
from pathlib import Path

import pytest
import torch
from support.making import Load
from support.pets import pictures, scene

from hundredfold import Config, UserError, train
from hundredfold.audit.audit import audit, cleaned_list
from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.data import related
from hundredfold.experiments.explore import training_split
from hundredfold.training.fitting import balanced
from hundredfold.training.setup import make_setup, split_dataset


def photo_folder(root: Path) -> Path:
    """Write 12 photos for each of two classes: of four, a second version is saved again."""
    for label, first in (("cat", 0), ("dog", 100)):
        for i in range(12):
            path = root / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(first + i).save(path)
            if i < 4:
                scene(first + i).save(root / label / f"again {i}.jpg", quality=60)
    return root


def test_near_duplicates_in_a_folder_stay_on_one_side(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    dataset = load(photo_folder(tmp_path / "pets"))
    assert "Copies, near duplicates and pictures of one group stay on one side" in said[0]
    for seed in range(5):
        config = Config(validation=0.2, seed=seed)
        rest, validation = split_dataset(dataset, config)
        assert len(validation) and len(dataset.test)
        sides = [
            {n.replace("again ", "").rpartition(".")[0] for n in part.names}
            for part in (rest, validation, dataset.test)
        ]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 24
        setup = make_setup(config, dataset, torch.device("cpu"))
        assert training_split(setup, dataset).labels.equal(rest.labels)


def test_copies_in_two_classes_are_not_divided(tmp_path: Path, load: Load) -> None:
    root = pictures(tmp_path / "pets", {"cat": 9, "dog": 9})
    for i in range(9):
        (root / f"dog/copy-{i}.png").write_bytes((root / f"cat/cat-{i}.png").read_bytes())
    dataset = load(root)
    test = {bytes(image.numpy().data) for image in dataset.test.images}
    assert not test & {bytes(image.numpy().data) for image in dataset.train.images}


def test_groups_of_a_table_stay_on_one_side(tmp_path: Path, load: Load, said: list[str]) -> None:
    pictures(tmp_path, {"cat": 30, "dog": 30})
    lines = [
        f"{name}/{name}-{i}.png,{name},{name if i % 2 else 'both'} {i % 5}"
        for name in ("cat", "dog")
        for i in range(30)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,Patient", *lines]))
    dataset = load(table)
    group = {line.split(",")[0]: line.split(",")[2] for line in lines}
    rest, validation = split_dataset(dataset, Config(validation=0.1))
    sides = [{group[name] for name in part.names} for part in (rest, validation, dataset.test)]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides)) == 15
    assert (
        dataset.digest()
        != dataclasses.replace(
            dataset, train=dataclasses.replace(dataset.train, groups=None)
        ).digest()
    )


def test_groups_in_several_given_splits_are_named(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    pictures(tmp_path, {"cat": 4, "dog": 4})
    splits = ("train", "train", "validation", "test")
    people = {"cat": ("ann", "bob", "bob", "eve"), "dog": ("", "joe", "", "")}
    lines = [
        f"{name}/{name}-{i}.png,{name},{splits[i]},{people[name][i]}"
        for name in people
        for i in range(4)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,split,person", *lines]))
    dataset = load(table)
    assert len(dataset.train) == 4
    assert "1 group has pictures in several splits" in said[0] and "bob" in said[0]
    result = audit(load_audited_pictures(str(table)), near=False, labels=False)
    (finding,) = [finding for finding in result.findings if finding.key == "group_splits"]
    assert [item.line for item in finding.items] == ["bob: 1 in train, 1 in validation"]
    clean = tmp_path / "clean.csv"
    clean.write_text(cleaned_list(result))
    assert clean.read_text().splitlines()[0] == "path,label,superclass,split,group"
    before = len(said)
    assert load(clean).train.names
    assert any("bob" in line for line in said[before:])


def test_a_chain_through_most_of_a_class_is_divided_and_said(
    tmp_path: Path, load: Load, said: list[str]
) -> None:
    root = pictures(tmp_path / "pets", {"dog": 30})
    for i in range(30):
        path = root / "cat" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        scene(1).save(path, quality=60 + i)
    dataset = load(root)
    assert any("form chains through more than half of the pictures of cat" in line for line in said)
    assert set(dataset.test.labels.tolist()) == {0, 1}


def test_many_pictures_are_only_searched_for_copies(
    tmp_path: Path, load: Load, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(related, "MAX_PICTURES", 20)
    dataset = load(photo_folder(tmp_path / "pets"))
    assert dataset.train.groups is None
    assert any(
        "more than 20 pictures, so near duplicates are not searched" in line for line in said
    )


def test_test_pictures_of_other_classes_are_named(tmp_path: Path, load: Load) -> None:
    counts = {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2, "test/unknown": 4}
    with pytest.raises(UserError, match=r"No test picture of .* has a class of the training"):
        load(pictures(tmp_path / "pets", counts))


@pytest.mark.parametrize(
    "counts, want",
    [
        ({"a": 3, "b": 30}, {"train": [1, 2], "validation": [1], "test": [1]}),
        ({"a": 2, "b": 30}, {"train": [1], "validation": [0], "test": [1]}),
        ({"a": 1, "b": 30}, {"train": [1], "validation": [0], "test": [0]}),
        ({f"{split}/{name}": count for split in ("train", "val", "test")
          for name, count in (("a", 1), ("b", 9))},
         {"train": [1], "validation": [1], "test": [1]}),
        ({f"{split}/{name}": count for split, few in (("train", 2), ("test", 1))
          for name, count in (("a", few), ("b", 9))},
         {"train": [1], "validation": [1], "test": [1]}),
    ],
)  # fmt: skip
def test_classes_of_one_to_three_pictures_train(
    counts: dict[str, int], want: dict[str, list[int]], tmp_path: Path, load: Load,
    said: list[str], tiny_config: Config,
) -> None:  # fmt: skip
    dataset = load(pictures(tmp_path / "few", counts))
    config = dataclasses.replace(tiny_config, validation=0.34, epochs=1)
    training, validation = split_dataset(dataset, config)
    parts = {"train": training, "validation": validation, "test": dataset.test}
    found = {name: int((part.labels == 0).sum()) for name, part in parts.items()}
    assert all(found[name] in want[name] for name in want), found
    assert any("no test picture" in line for line in said) == (not found["test"])
    run = train(config, dataset, quiet=True)
    assert run.finished and 0 <= run.metrics()["test"]["macro_recall"] <= 1


@pytest.mark.parametrize(("most", "want"), [(9, "none"), (19, "none"), (20, "loss"), (60, "loss")])
def test_classes_of_very_unequal_size_are_balanced(most: int, want: str) -> None:
    labels = torch.tensor([0] * most + [2] * 2)  # class 1 has no pictures and does not count
    assert balanced(Config(), labels).balance == want
    for chosen in ("none", "loss", "sampling"):
        assert balanced(Config(balance=chosen), labels).balance == chosen


def test_the_balance_is_recorded_and_said(
    tmp_path: Path, load: Load, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(pictures(tmp_path / "pets", {"train/a": 30, "train/b": 3, "test/a": 2}))
    run = train(dataclasses.replace(tiny_config, epochs=1, validation=0.0), dataset)
    assert run.config().balance == "loss"
    said = " ".join(capsys.readouterr().out.split())
    assert "classes of 3 to 30 pictures: each class has the same weight in the loss" in said
