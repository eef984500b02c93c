"""Data sets stored as shards, made by the libraries of Hugging Face and WebDataset."""

import json
import tarfile
from pathlib import Path

import datasets
import pytest
import torch
import webdataset
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from support.making import Load
from support.shards import rows, write_parquet, write_tars
from test_tables import pixels

from hundredfold import Dataset, UserError, load_data
from hundredfold.cli.main import main
from hundredfold.data import cifar100
from hundredfold.data.shards import expand_braces


def test_shards_of_hugging_face_are_read(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    (folder / "README.md").write_text("A card.")
    found = load(folder, strict=True)
    assert found.classes == ("cat", "dog") and found.source == str(folder)
    assert pixels(found) == pixels(load(root))
    assert found.train.names[0].startswith("data/train-00000-of-00002.parquet/")
    assert load(folder / "data").digest() == found.digest()


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_shards_of_webdataset_are_read(kind: str, root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards", kind)
    found = load(folder, strict=True)
    assert found.classes == ("cat", "dog")
    assert pixels(found) == pixels(load(root))
    assert load_data(f"{folder}/{{train-000,train-001,test-000}}.tar").digest() == found.digest()


def test_one_shard_is_divided_like_a_folder_without_splits(
    root: Path, tmp_path: Path, load: Load
) -> None:
    shard = write_tars(root, tmp_path / "shards").rename(tmp_path / "x") / "train-000.tar"
    shard = shard.rename(shard.with_name("pets.tar"))
    found = load(shard, strict=True)
    assert found.classes == ("cat", "dog")
    assert len(found.train) + len(found.test) == 6


def test_a_shard_without_a_split_beside_others_is_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    (folder / "train-001.tar").rename(folder / "more.tar")
    assert len(load(folder, strict=True).train) == 12
    assert (
        "The names of these shards name no split, so their pictures are used for training: "
        "more.tar."
    ) in said


def test_shards_beside_pictures_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    before = load(root)
    assert not any("shards" in sentence for sentence in said)
    write_tars(root, tmp_path / "shards")
    (shard, *_) = sorted((tmp_path / "shards").rglob("*.tar"))
    shard.rename(root / "one.tar")
    (root / "other.tar").write_text("no archive")
    (root / "other.parquet").write_text("no parquet")
    assert pixels(load(root)) == pixels(before)
    assert (
        f"{root} has pictures and shards. The pictures are used, and the shards are not: one.tar. "
        "To use the shards, pass their names, or move them to a folder of their own."
    ) in said


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["a", "x-", ".tar", "0"]),
            st.lists(st.sampled_from(["a", "b", "10"]), min_size=2, max_size=3).map(
                lambda words: "{" + ",".join(words) + "}"
            ),
            st.tuples(st.integers(0, 99), st.integers(0, 9)).map(
                lambda pair: f"{{{pair[0]:03d}..{sum(pair):03d}}}"
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_braces_expand_as_in_a_shell(parts: list[str]) -> None:
    pattern = "".join(parts)
    assert [str(path) for path in expand_braces(Path(pattern))] == list(braceexpand(pattern))


def test_a_pattern_for_too_many_files_is_refused() -> None:
    with pytest.raises(UserError, match="more than 100,000 files"):
        load_data("x-{0..999999999}-{0..999999999}.tar")
    for missing in ("x-{0..9}.tar", "x-{0..9}" + "x" * 5000 + ".tar"):
        with pytest.raises(UserError, match="There is no file or folder x-"):
            load_data(missing)
    assert expand_braces(Path("a{b}c")) == [Path("a{b}c")]


def test_a_column_with_names_is_not_the_path(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    for path in (folder / "data").glob("*.parquet"):
        rows = parquet.read_table(path)
        names = [[f"{i:07d}.png" for i in range(len(rows))]]
        parquet.write_table(rows.append_column("filename", names), path)
    found = load(folder, strict=True)
    assert pixels(found) == pixels(load(root))


def test_classes_of_one_name_stay_apart(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    before = load(folder)
    (folder / "classnames.txt").write_text("crane\ncrane\ncat\n")
    found = load(folder)
    assert found.classes == ("crane (0)", "crane (1)")
    assert found.train.labels.equal(before.train.labels)


def test_names_of_classes_are_read_above_a_folder_of_a_split(
    root: Path, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "set").mkdir()
    folder = write_tars(root, tmp_path / "set/train")
    (folder / "classnames.txt").unlink()
    (tmp_path / "set/classes.txt").write_text("crane\nswan\n")
    assert load(folder).classes == ("crane", "swan")


def test_what_macos_adds_to_an_archive_is_ignored(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    before = load(folder)
    for shard in folder.glob("*.tar"):
        with tarfile.open(shard) as old, tarfile.open(folder / "new", "w") as new:
            for member in old:
                extra = tarfile.TarInfo(
                    str(Path(member.name).with_name(f"._{Path(member.name).name}"))
                )
                new.addfile(extra)
                new.addfile(member, old.extractfile(member))
        (folder / "new").replace(shard)
    assert load(folder, strict=True).digest() == before.digest()


def test_masks_are_no_pictures_and_equal_keys_are_different_samples(
    root: Path, tmp_path: Path, load: Load
) -> None:
    files, labels = rows(root, "train")
    folder = tmp_path / "shards"
    folder.mkdir()
    for kind in ("png", "image.png"):
        with webdataset.TarWriter(str(folder / "train.tar")) as writer:
            for i, (file, label) in enumerate(zip(files, labels, strict=True)):
                sample = {"depth.png": b"no picture", kind: file.read_bytes(), "cls": label}
                writer.write({"__key__": f"{i // 2 % 2}/{i % 2}", **sample})
        found = load(folder, strict=True)
        assert {image.numpy().tobytes() for image in (*found.train.images, *found.test.images)} == {
            image.numpy().tobytes() for image in load(root / "train").train.images
        } | {image.numpy().tobytes() for image in load(root / "train").test.images}


def test_linked_folders_of_shards_are_read(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "data").symlink_to(folder / "data")
    assert load(linked, strict=True).digest() == load(folder).digest()


def test_the_audit_reads_shards(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    assert main(["audit", str(folder), "--out", "out"]) == 0
    assert json.loads(Path("out/audit.json").read_text())["pictures"] == 16
    assert main(["audit", str(folder), "--fix", "clean.csv"]) == 2
    assert "has its pictures in shards" in capsys.readouterr().err


@pytest.mark.long
def test_cifar_100_of_hugging_face_is_the_official_one(cifar: Dataset, tmp_path: Path) -> None:
    misspelt = ["cra" if name == "crab" else name for name in cifar.classes]  # as on the Hub
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=misspelt),
            "coarse_label": datasets.ClassLabel(names=list(cifar.superclasses)),
        }
    )
    folder = tmp_path / "hub" / "cifar100"
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        split = cifar.splits[name]
        columns = {
            "img": [image.numpy() for image in split.images.permute(0, 2, 3, 1)],
            "fine_label": split.labels.tolist(),
            "coarse_label": torch.tensor(cifar.parents)[split.labels].tolist(),
        }
        written = datasets.Dataset.from_dict(columns, features=features)
        written.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    found = load_data(str(folder.parent))
    assert found.digest() == cifar100.DIGEST
    assert found.source == str(folder.parent)
    columns["fine_label"][0] = (columns["fine_label"][0] + 1) % 100
    written = datasets.Dataset.from_dict(columns, features=features)
    written.to_parquet(folder / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="not its pictures and labels"):
        load_data(str(folder))
