"""Shards that are damaged, missing or ambiguous: what is wrong is named, and the rest is used."""

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import webdataset
from pyarrow import parquet
from support.making import Load
from support.shards import CLASSES, rows, table, write_parquet, write_tars

from hundredfold import Dataset, UserError, load_data
from hundredfold.cli.main import main
from hundredfold.data.shards import find_shards


def said_by(load: Load, said: list[str], path: Path | str) -> tuple[Dataset, str]:
    """Return a dataset and what was said about pictures that were left out, which is refused."""
    with pytest.raises(UserError, match="Repair or remove"):
        load_data(str(path), strict=True)
    said.clear()
    dataset = load(path)
    (sentence,) = [text for text in said if text.endswith("This data is left out.")]
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
        "read. This data is left out."
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


def test_missing_shards_of_a_pattern_are_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    (folder / "train-001.tar").unlink()
    found, sentence = said_by(load, said, f"{folder}/{{train,test}}-{{000..001}}.tar")
    assert sentence == (
        "The pictures of 2 of 4 shards are missing: train-001.tar, test-001.tar. This data is left "
        "out."
    )
    assert len(found.train) == 6 and len(found.test) == 4


def test_a_header_without_sense_is_damage(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    shard = folder / "train-001.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("x.png")
        member.pax_headers = {"size": "many"}
        tar.addfile(member)
    assert len(load(folder).train) == 6


def test_a_damaged_header_in_the_middle_of_a_shard_is_named(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    shard = folder / "train-001.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        content[tar.getmembers()[4].offset] ^= 1
    shard.write_bytes(content)
    found, sentence = said_by(load, said, folder)
    assert "The pictures after the first 2 of " in sentence
    assert len(found.train) == 6 + 2


def test_names_and_labels_that_are_not_text_lose_one_picture_each(
    root: Path, tmp_path: Path, load: Load, said: list[str]
) -> None:
    folder = write_tars(root, tmp_path / "shards")
    files, _ = rows(root, "train")
    with tarfile.open(folder / "train-001.tar", "w") as tar:
        labels = {"a": b"1", "caf\udce9": b"1", "c": rb'{"label": "\ud83d"}', "d": b"1"}
        for key, label in labels.items():
            kind = "json" if label.startswith(b"{") else "cls"
            for name, content in ((f"{key}.png", files[0].read_bytes()), (f"{key}.{kind}", label)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = load(folder)
    assert "1 sample with a name or a label that is not valid Unicode: caf\\xe9. This" in said[0]
    assert "1 picture without a label of a known class: c.png. This" in said[1]
    assert len(found.train) == 6 + 2


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
        "This data is left out."
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
    assert [text for text in said if text.endswith("This data is left out.")] == [
        f"{shard} has 1 sample without a picture of a known kind: 4. This data is left out.",
        f"{shard} has 4 pictures without a label of a known class: 1.png, 2.png, 5.png, 6.png. "
        "This data is left out.",
    ]


def test_class_names_must_be_one_a_line(root: Path, tmp_path: Path, load: Load) -> None:
    folder = write_tars(root, tmp_path / "shards")
    (folder / "classnames.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"classnames\.txt has an empty line"):
        load(folder)


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


def test_folders_with_several_sets_are_refused(root: Path, tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "hub"
    for name in ("fine", "coarse"):
        write_parquet(root, folder / name)
    with pytest.raises(UserError, match=re.escape("several folders: coarse/data, fine/data.")):
        load(folder)
    assert load(folder / "fine").classes == ("cat", "dog")
