"""`hundredfold pack`: pictures in shards are the same pictures."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.making import Load
from support.pets import picture, pictures
from test_tables import pixels
from webdataset.tariterators import group_by_keys, tar_file_expander

from hundredfold import Dataset, UserError
from hundredfold.cli.main import main
from hundredfold.data.pack import pack
from hundredfold.data.shard_index import INDEX, read_index


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of pictures with superclasses and splits."""
    counts = {
        f"{split}/{place}": count
        for split, count in (("train", 7), ("val", 2), ("test", 3))
        for place in ("pets/cat", "pets/dog", "farm/a.b cow")
    }
    return pictures(tmp_path / "animals", counts)


def test_shards_have_the_same_pictures_labels_and_splits(
    root: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train/pets/cat/train-pets-cat-0.png").rename(root / "train/pets/cat/no suffix")
    assert main(["pack", str(root), "--to", "shards", "--per-shard", "4"]) == 0
    assert "36 pictures in 11 shards" in capsys.readouterr().out
    found = load("shards", strict=True)
    assert found.digest() == load(root).digest()
    assert found.superclasses == ("farm", "pets")
    assert found.classes == ("a.b cow", "cat", "dog")
    assert sorted(read_index(Path("shards")).finished) == [
        *(f"test-{i:06d}.tar" for i in range(3)),
        *(f"train-{i:06d}.tar" for i in range(6)),
        *(f"validation-{i:06d}.tar" for i in range(2)),
    ]


def test_groups_and_numbers_as_class_names_stay(tmp_path: Path, load: Load) -> None:
    folder = pictures(tmp_path / "digits", {"1": 6, "2": 6, "10": 6})
    pack(folder, tmp_path / "shards")
    found = load(tmp_path / "shards", strict=True)
    assert found.classes == ("1", "2", "10")
    assert found.digest() == load(folder).digest()

    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]},{i // 2}" for i, name in enumerate(names)]
    table = folder / "list.csv"
    table.write_text("\n".join(["path,label,person", *lines]))
    pack(table, tmp_path / "grouped")
    again = load(tmp_path / "grouped")
    assert again.train.groups is not None
    assert again.digest() == load(table).digest()


def test_webdataset_reads_the_shards(root: Path) -> None:
    folder = Path("flat")
    shutil.copytree(root / "train" / "pets", folder)
    shards = pack(folder, Path("shards"), 5)
    samples = []
    for shard in shards:
        with Path("shards", shard.name).open("rb") as file:
            files = tar_file_expander([{"url": shard.name, "stream": file}])
            samples += list(group_by_keys(files))
    assert len(samples) == 14
    want = {path.read_bytes(): path.parent.name for path in folder.rglob("*.png")}
    names = Path("shards/classnames.txt").read_text().split()
    assert {sample["png"]: names[int(sample["cls"])] for sample in samples} == want
    first = [int(sample["cls"]) for sample in samples[:5]]
    assert len(set(first)) == 2  # the classes are mixed


def test_what_is_packed_is_kept(root: Path) -> None:
    folder = Path("shards")
    pack(root, folder, 4)
    whole = contents(folder)
    kept, lost = sorted(folder.glob("*.tar"))[:2]
    before = kept.stat().st_ino
    lost.unlink()
    index = folder / INDEX
    index.write_text(index.read_text()[:-10])
    (folder / ".test-000000.tar.unfinished").write_bytes(b"half")
    pack(root, folder, 4)
    again = contents(folder)
    assert {name: again[name] for name in again if name != INDEX} == {
        name: whole[name] for name in whole if name != INDEX
    }
    assert sorted(again[INDEX].split(b"\n")) == sorted(whole[INDEX].split(b"\n"))
    assert kept.stat().st_ino == before


def test_an_incomplete_set_is_named(root: Path, load: Load, said: list[str]) -> None:
    pack(root, Path("shards"), 4)
    Path("shards/test-000001.tar").unlink()
    index = Path("shards", INDEX)
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(UserError, match=r"1 of 11 shards are missing: test-000001\.tar"):
        load("shards", strict=True)
    content = bytearray(Path("shards/train-000001.tar").read_bytes())
    content[700] ^= 1
    Path("shards/train-000001.tar").write_bytes(content)
    pack(root, Path("shards"), 4)  # writes both again
    assert load("shards", strict=True).digest() == load(root).digest()


@pytest.mark.long
def test_a_killed_packing_goes_on(root: Path, tmp_path: Path) -> None:
    for i in range(300):
        picture(root / "train" / "pets" / "cat" / f"more-{i}.png", 200)
    pack(root, tmp_path / "whole", 4)
    folder = tmp_path / "shards"
    command = ["-m", "hundredfold", "pack", str(root), "--to", str(folder), "--per-shard", "4"]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("*.tar")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(folder.glob("*.tar"))) < len(list((tmp_path / "whole").glob("*.tar")))
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    assert contents(folder).keys() == contents(tmp_path / "whole").keys()
    for path in (tmp_path / "whole").glob("*.tar"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_two_packings_at_once_write_one_set(root: Path, tmp_path: Path, load: Load) -> None:
    command = [sys.executable, "-m", "hundredfold", "pack", str(root), "--to", "shards"]
    command += ["--per-shard", "3"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert pixels(load(tmp_path / "shards", strict=True)) == pixels(load(root))


def test_a_changed_shard_is_left_out(root: Path, load: Load, said: list[str]) -> None:
    pack(root, Path("shards"), 4)
    shard = Path("shards/train-000002.tar")
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"its checksum differs from the one in shards\.jsonl"):
        load("shards", strict=True)
    said.clear()
    found: Dataset = load("shards")
    assert len(found.train) == 21 - 4
    assert any("train-000002.tar cannot be used" in text for text in said)


def test_wrong_use_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(root, Path("shards"), 4)
    with pytest.raises(UserError, match="shards has shards of other pictures"):
        pack(root, Path("shards"), 5)
    with pytest.raises(UserError, match="has other files"):
        pack(root, root)
    with pytest.raises(UserError, match="--per-shard is 0, but must be at least 1"):
        pack(root, Path("other"), 0)
    for name in ("a\nb", " a", "None", "'=x"):
        odd = pictures(tmp_path / "odd" / name, {name: 2, "c": 2})
        with pytest.raises(UserError, match=re.escape(f"{name!r} cannot be stored in shards")):
            pack(odd, tmp_path / "packed")
    assert main(["pack", "cifar100", "--to", "x"]) == 2
    assert "is not a folder, an archive or a table" in capsys.readouterr().err
    Path("shards", INDEX).write_text("{}\n[1]\n")
    with pytest.raises(UserError, match=r"shards\.jsonl cannot be read or is damaged"):
        pack(root, Path("shards"), 4)


def test_missing_pictures_are_named(root: Path, tmp_path: Path) -> None:
    table = root / "list.csv"
    rows = [f"train/pets/cat/train-pets-cat-{i}.png,cat" for i in range(9)]
    table.write_text("\n".join(["path,label", *rows]))
    said: list[str] = []
    (shard,) = pack(table, tmp_path / "shards", tell=said.append)
    assert shard.pictures == 7 and json.loads(json.dumps(shard._asdict()))["pictures"] == 7
    assert said == [
        "2 pictures not found and left out: train/pets/cat/train-pets-cat-7.png, "
        "train/pets/cat/train-pets-cat-8.png."
    ]
