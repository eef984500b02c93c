"""Data sets stored as shards, made by the libraries of Hugging Face and WebDataset."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import webdataset
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from support.making import Load
from support.pets import pictures
from test_tables import pixels

from hundredfold import Dataset, UserError, load_data
from hundredfold.cli.main import main
from hundredfold.data import cifar100
from hundredfold.data.shards import expand_braces, find_shards

CLASSES = ["cat", "dog"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of pictures, from which the shards are made."""
    counts = {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}
    return pictures(tmp_path / "pets", counts)


def rows(root: Path, split: str) -> tuple[list[Path], list[int]]:
    """Return the files of a split, in turn from each class, and their labels."""
    files = sorted((root / split).rglob("*.png"), key=lambda path: path.stem.rpartition("-")[2])
    return files, [CLASSES.index(file.parent.name) for file in files]


def table(files: list[Path], labels: list[int]) -> datasets.Dataset:
    """Return a data set of the library with names for its labels."""
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def write_parquet(root: Path, folder: Path) -> Path:
    """Write two training shards and one test shard as `datasets` does."""
    for split, shards in (("train", 2), ("test", 1)):
        files, labels = rows(root, split)
        whole = table(files, labels)
        for i in range(shards):
            path = folder / "data" / f"{split}-{i:05d}-of-{shards:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.shard(shards, i).to_parquet(path)
    return folder


def write_tars(root: Path, folder: Path, kind: str = "cls") -> Path:
    """Write two training shards and one test shard as WebDataset does."""
    folder.mkdir()
    for split, shards in (("train", 2), ("test", 1)):
        files, labels = rows(root, split)
        for i in range(shards):
            with webdataset.TarWriter(str(folder / f"{split}-{i:03d}.tar")) as writer:
                for file, label in list(zip(files, labels, strict=True))[i * 6 : i * 6 + 6]:
                    value = label if kind == "cls" else {"label": CLASSES[label], "id": 7}
                    sample = {"__key__": f"{split}/{file.stem}", "png": file.read_bytes()}
                    writer.write(sample | {kind: value})
    if kind == "cls":
        (folder / "classnames.txt").write_text("cat\ndog\n")
    return folder


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
        "The names of these shards say no split, so their pictures are used for training: more.tar."
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


def said_by(load: Load, said: list[str], path: Path | str) -> tuple[Dataset, str]:
    """Return a dataset and what was said about pictures that were left out, which is refused."""
    with pytest.raises(UserError, match="Repair or remove"):
        load_data(str(path), strict=True)
    said.clear()
    dataset = load(path)
    (sentence,) = [text for text in said if text.endswith("They are left out.")]
    return dataset, sentence


@pytest.mark.parametrize("cut", ["in a picture", "before a picture", "after a sample"])
def test_what_comes_before_the_cut_of_a_shard_is_used(
    cut: str, root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    shard = folder / "train-001.tar"
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    place = {
        "in a picture": members[5].offset_data + 5,
        "before a picture": members[5].offset,
        "after a sample": members[4].offset,
    }[cut]
    shard.write_bytes(shard.read_bytes()[:place])
    found, sentence = said_by(load, said, folder)
    assert sentence == (
        f"The pictures after the first 2 of {shard}, which is cut short or damaged, cannot be "
        "read. They are left out."
    )
    assert len(found.train) == 6 + 2 and len(found.test) == 4


def test_a_damaged_parquet_shard_is_left_out(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    shard = folder / "data" / "train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    found, sentence = said_by(load, said, folder)
    assert sentence.startswith(f"The pictures of {shard} cannot be used (Cannot read {shard}: ")
    assert len(found.train) == 6 and len(found.test) == 4
    for path in (folder / "data").glob("*.parquet"):
        path.write_bytes(b"")
    assert not find_shards(folder)
    assert main(["audit", str(folder)]) == 2


def test_missing_shards_of_a_folder_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    (folder / "data" / "train-00000-of-00002.parquet").unlink()
    _, sentence = said_by(load, said, folder)
    assert "1 of 3 shards are missing: train-00000-of-00002.parquet." in sentence


def test_a_column_with_names_is_not_the_path(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    for path in (folder / "data").glob("*.parquet"):
        rows = parquet.read_table(path)
        names = [[f"{i:07d}.png" for i in range(len(rows))]]
        parquet.write_table(rows.append_column("filename", names), path)
    found = load(folder, strict=True)
    assert pixels(found) == pixels(load(root))


def test_class_names_must_be_one_a_line(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    (folder / "classnames.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"classnames\.txt has an empty line"):
        load(folder)


def test_classes_of_one_name_stay_apart(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    before = load(folder)
    (folder / "classnames.txt").write_text("crane\ncrane\ncat\n")
    found = load(folder)
    assert found.classes == ("crane (0)", "crane (1)")
    assert found.train.labels.equal(before.train.labels)


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


def test_a_header_without_sense_is_damage(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    shard = folder / "train-001.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("x.png")
        member.pax_headers = {"size": "many"}
        tar.addfile(member)
    assert len(load(folder).train) == 6


def test_odd_labels_and_long_captions_lose_one_picture_at_most(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    files, labels = rows(root, "train")
    names = [CLASSES[label] for label in labels]
    names[2], names[3] = "two\nlines", "x" * 300
    images: list[dict[str, Any]] = [
        {"bytes": file.read_bytes(), "path": file.name} for file in files
    ]
    images[5]["bytes"] = None
    whole = {"image": images, "label": names, "caption": ["word " * 40_000] * len(files)}
    for path in (folder / "data").glob("train-*"):
        path.unlink()
    shard = folder / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(whole).to_parquet(shard)
    found = load(folder)
    assert len(found.train) == 12 - 3
    assert any("has 1 row without a picture: 6" in sentence for sentence in said)
    assert any("2 pictures without a label of a known class" in sentence for sentence in said)


def test_columns_of_one_name_are_damage(root: Path, tmp_path: Path, load: Load) -> None:
    shard = write_parquet(root, tmp_path / "hub") / "data" / "test-00000-of-00001.parquet"
    table = parquet.read_table(shard)
    parquet.write_table(table.append_column("label", table["label"]), shard)
    with pytest.raises(UserError, match="has several columns called label"):
        load(shard)


def test_missing_shards_of_a_pattern_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    (folder / "train-001.tar").unlink()
    found, sentence = said_by(load, said, f"{folder}/{{train,test}}-{{000..001}}.tar")
    assert sentence == (
        "The pictures of 2 of 4 shards are missing: train-001.tar, test-001.tar. They are left out."
    )
    assert len(found.train) == 6 and len(found.test) == 4


def test_labels_outside_of_the_schema_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    files, labels = rows(root, "train")
    shard = folder / "data" / "train-00001-of-00002.parquet"
    whole = table(files, labels)
    wrong = [-1, 0, 1, 2, *labels[4:]]
    number = whole.cast_column("label", datasets.Value("int64"))
    number = number.remove_columns("label").add_column("label", wrong)
    number.to_parquet(shard)
    kept = parquet.read_table(folder / "data" / "train-00000-of-00002.parquet").schema.metadata
    parquet.write_table(parquet.read_table(shard).replace_schema_metadata(kept), shard)
    found, sentence = said_by(load, said, folder)
    assert sentence == (
        f"{shard} has 2 pictures without a label of a known class: 0000001.png, 0000004.png. "
        "They are left out."
    )
    assert len(found.train) == 6 + 10


def test_labels_that_have_no_class_name_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    with webdataset.TarWriter(str(folder / "train-002.tar")) as writer:
        for i, label in enumerate(["1", "2", "-1", "cat"]):
            picture = rows(root, "train")[0][i].read_bytes()
            writer.write({"__key__": f"{i}", "png": picture, "cls": label})
        writer.write({"__key__": "4", "heic": b"x", "cls": "1"})
        writer.write({"__key__": "5", "png": picture})
        writer.write({"__key__": "6", "png": picture, "json": [1]})
    with pytest.raises(UserError, match="Repair or remove"):
        load(folder, strict=True)
    said.clear()
    assert len(load(folder).train) == 12 + 2
    shard = folder / "train-002.tar"
    assert [text for text in said if text.endswith("They are left out.")] == [
        f"{shard} has 1 sample without a picture of a known kind: 4. They are left out.",
        f"{shard} has 4 pictures without a label of a known class: 1.png, 2.png, 5.png, 6.png. "
        "They are left out.",
    ]


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


def test_an_archive_that_leads_outside_is_not_unpacked(
    root: Path, tmp_path: Path, load: Load
) -> None:
    shard = write_tars(root, tmp_path / "shards") / "train-000.tar"
    with tarfile.open(shard, "a") as tar:
        for name, content in (("../x.png", b"x"), ("../x.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match="leads outside"):
        load(shard.parent)


def test_superclasses_of_only_some_shards_are_refused(
    root: Path, tmp_path: Path, load: Load
) -> None:
    folder = write_tars(root, tmp_path / "shards", "json")
    with webdataset.TarWriter(str(folder / "train-002.tar")) as writer:
        label = {"label": "cat", "superclass": "animal"}
        writer.write({"__key__": "0", "png": rows(root, "train")[0][0].read_bytes(), "json": label})
    with pytest.raises(UserError, match="has no superclass, although other pictures have one"):
        load(folder)


def test_linked_folders_of_shards_are_read(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_parquet(root, tmp_path / "hub")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "data").symlink_to(folder / "data")
    assert load(linked, strict=True).digest() == load(folder).digest()


def test_folders_with_several_sets_are_refused(root: Path, tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "hub"
    for name in ("fine", "coarse"):
        write_parquet(root, folder / name)
    with pytest.raises(UserError, match=re.escape("several folders: coarse/data, fine/data.")):
        load(folder)
    assert load(folder / "fine").classes == ("cat", "dog")


def test_the_audit_reads_shards(root: Path, tmp_path: Path) -> None:
    folder = write_tars(root, tmp_path / "shards")
    assert main(["audit", str(folder), "--out", "out"]) == 0
    assert json.loads(Path("out/audit.json").read_text())["pictures"] == 16


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
    for path in (folder.parent, folder):
        found = load_data(str(path))
        assert found.digest() == cifar100.DIGEST
        assert found.source == str(path)
    columns["fine_label"][0] = (columns["fine_label"][0] + 1) % 100
    written = datasets.Dataset.from_dict(columns, features=features)
    written.to_parquet(folder / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="not its pictures and labels"):
        load_data(str(folder))
