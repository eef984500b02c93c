"""The audit against pictures whose faults are known, and against slow or published versions."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from support.pets import scene

from hundredfold import Dataset, Split
from hundredfold.audit.audit import Audit, audit, cleaned_list
from hundredfold.audit.page import render
from hundredfold.audit.subject import Subject, load_subject, of_dataset
from hundredfold.cli.audit import findings_table
from hundredfold.cli.main import main
from hundredfold.data.load import load_data
from hundredfold.support.errors import UserError

RNG = np.random.default_rng(5)


def save(image: Image.Image, path: Path) -> Path:
    """Write a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def items(found: Audit, key: str) -> list[str]:
    """Return what was found of one kind."""
    return next(finding.items for finding in found.findings if finding.key == key)


def pairs_of(found: Audit) -> set[frozenset[str]]:
    """Return the near duplicates by name."""
    names = found.subject.names
    return {frozenset((names[pair.first], names[pair.second])) for pair in found.near}


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder with one of each fault, and what each is known to be."""
    root = tmp_path / "pets"
    for i in range(20):
        save(scene(i), root / f"train/{'cat' if i % 2 else 'dog'}/{i}.png")
        save(scene(100 + i), root / f"test/{'cat' if i % 2 else 'dog'}/{100 + i}.png")
    copy = (root / "train/dog/0.png").read_bytes()
    (root / "test/dog/copy.png").write_bytes(copy)  # leaked
    (root / "train/cat/copy of 2.png").write_bytes((root / "train/dog/2.png").read_bytes())
    (root / "train/cat/copy of 3.png").write_bytes((root / "train/cat/3.png").read_bytes())
    shot = scene(4, 112).crop((6, 4, 102, 100))
    save(ImageEnhance.Brightness(shot).enhance(0.9), root / "test/dog/shot of 4.png")
    save(scene(5).transpose(Image.Transpose.FLIP_LEFT_RIGHT), root / "test/cat/mirror of 5.png")
    (root / "train/cat/broken.jpg").write_bytes(copy[:100])
    save(scene(206), root / "train/cat/really.png").rename(root / "train/cat/really.jpg")
    save(scene(7).convert("L"), root / "train/cat/grey.png")
    save(scene(8, 20), root / "train/cat/small.png")
    save(scene(9).resize((400, 60)), root / "train/cat/long.png")
    frames = [scene(seed, 40) for seed in (200, 201)]
    frames[0].save(root / "train/cat/moves.gif", save_all=True, append_images=frames[1:])
    save(scene(300), root / "train/hen/only.png")
    save(scene(301), root / "test/owl/unknown.png")
    (root / "notes.txt").write_text("x")
    return root


def test_every_fault_is_found(faulty: Path) -> None:
    found = audit(load_subject(str(faulty)), labels=False)
    assert items(found, "unusable")[0].startswith("train/cat/broken.jpg: cannot be read")
    assert items(found, "misnamed") == ["train/cat/really.jpg: is PNG, not JPEG"]
    assert {"train/cat/grey.png: L"} < set(items(found, "mode"))
    assert items(found, "animated") == ["train/cat/moves.gif: its first frame counts"]
    assert items(found, "small") == ["train/cat/small.png: 20 x 20"]
    assert items(found, "long") == ["train/cat/long.png: 400 x 60"]
    assert items(found, "passed_over") == [
        "notes.txt: beside the folder train, not in it"
    ] or items(found, "passed_over") == ["notes.txt: not a picture by its name"]
    assert items(found, "unknown") == ["owl: 1 picture in test, none to train on"]
    assert items(found, "singletons") == ["hen: 1 picture"]
    assert items(found, "missing") == ["hen: none in test"]
    assert items(found, "unequal") == ["hen: 1 to train on, cat: 17"]
    (leaked,) = items(found, "exact_splits")
    assert leaked == "train/dog/0.png [dog] = test/dog/copy.png [dog] (the same)"
    assert len(items(found, "exact_classes")) == len(items(found, "exact_within")) == 1
    assert "copy of 2" in items(found, "exact_classes")[0]
    assert "copy of 3" in items(found, "exact_within")[0]
    near = pairs_of(found)
    assert frozenset(("train/dog/4.png", "test/dog/shot of 4.png")) in near
    assert frozenset(("train/cat/5.png", "test/cat/mirror of 5.png")) in near
    strangers = {p for p in near if all(n.split("/")[2].split(".")[0].isdigit() for n in p)}
    assert not strangers


def test_the_cleaned_list_trains_without_what_is_wrong(faulty: Path, tmp_path: Path) -> None:
    found = audit(load_subject(str(faulty)), labels=False, near=False)
    assert "Near duplicates were not looked for: not asked for." in found.skipped
    kinds = {finding.key for finding in found.findings}
    assert "exact_splits" in kinds and "labels" not in kinds  # "not found" is of what was sought
    assert not any(kind.startswith("near_") for kind in kinds)
    (tmp_path / "clean.csv").write_text(cleaned_list(found))
    said: list[str] = []
    cleaned = load_data(str(tmp_path / "clean.csv"), said.append)
    names = [Path(name).name for split in cleaned.splits.values() for name in split.names]
    gone = {"0.png", "broken.jpg", "2.png", "copy of 2.png", "unknown.png"}
    assert not gone & set(names)
    assert len({"3.png", "copy of 3.png"} & set(names)) == 1
    assert {"copy.png", "shot of 4.png", "really.jpg"} < set(names)
    again = audit(load_subject(str(tmp_path / "clean.csv")), labels=False, near=False)
    assert {finding.key for finding in again.wrong} == {"misnamed"}
    assert (faulty / "train/cat/broken.jpg").exists()


def test_the_command_writes_a_page_and_is_strict_if_told(
    faulty: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = f"audit {faulty} --no-labels --fix clean.csv"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "copies in two splits" in said and "Cleaned clean.csv, without 6" in said
    content = json.loads((tmp_path / "audit/audit.json").read_text())
    assert content["findings"]["unusable"]["items"] and content["pictures"] == 52
    page = (tmp_path / "audit/audit.html").read_text()
    assert "data:image/png;base64" in page and "Worth a look" in page
    assert main([*command.split(), "--strict"]) == 1
    assert "To mend:" in capsys.readouterr().err
    assert main(["audit", "nowhere"]) == 2
    for what, why in (("sample", "not of files"), (zipped(faulty), "is an archive")):
        assert main(["audit", what, "--fix", "x.csv", "--out", "none"]) == 2
        assert why in capsys.readouterr().err
    assert not Path("none").exists()  # refused before any work


def zipped(folder: Path) -> str:
    """Return an archive of a folder."""
    return shutil.make_archive(str(folder), "zip", folder)


def test_data_is_found_as_train_finds_it(tmp_path: Path) -> None:
    save(scene(0), tmp_path / "sample/cat/1.png")  # a folder here of a built-in name
    assert len(load_subject("sample")) == 3000


def test_names_without_a_suffix_are_not_misnamed(tmp_path: Path) -> None:
    for i in range(4):
        save(scene(i), tmp_path / f"{i}.png").rename(tmp_path / f"{i:040x}")
    rows = [f"{i:040x},{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    found = audit(load_subject(str(tmp_path / "list.csv")))
    assert items(found, "misnamed") == []


def test_an_example_is_cut_where_a_thousand_copies_have_a_thousand_names(tmp_path: Path) -> None:
    first = save(scene(0), tmp_path / "pets/a/0.png").read_bytes()
    for i in range(1, 1000):
        (tmp_path / f"pets/a/{i}.png").write_bytes(first)
    save(scene(1), tmp_path / "pets/b/0.png")
    found = audit(load_subject(str(tmp_path / "pets")), labels=False, near=False)
    assert len(items(found, "exact_within")[0]) > 10_000
    cells = [cell for column in findings_table(found).columns for cell in column._cells]
    assert max(len(str(cell)) for cell in cells) < 300


def test_names_are_text_on_the_page_not_markup(tmp_path: Path) -> None:
    for i in range(4):
        save(scene(i), tmp_path / f"pets/<b>&{i % 2}/<script>{i // 2}.png")
    page = render(audit(load_subject(str(tmp_path / "pets")), labels=False))
    assert "<script>" not in page and "<b>&" not in page
    assert "&lt;b&gt;&amp;0" in page


def test_nothing_to_audit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/bad.png").write_text("x")
    with pytest.raises(UserError, match="no picture that can be read"):
        audit(load_subject(str(tmp_path / "pets")))


def test_three_pictures_are_audited(tmp_path: Path) -> None:
    for i in range(3):
        save(scene(i), tmp_path / f"pets/class{i % 2}/{i}.png")
    found = audit(load_subject(str(tmp_path / "pets")))
    assert "needs 100 pictures, not 3" in found.skipped[0]
    assert not found.near and not found.wrong
    assert "Nothing that must be mended" in render(found)


@pytest.mark.long
def test_wrong_labels_are_suspected(tiny: Dataset) -> None:
    big = tiny.train[torch.arange(960) % 96]
    noise = torch.randint(0, 20, big.images.shape, dtype=torch.uint8)
    changed = torch.arange(960) % 37 == 0
    labels = torch.where(changed, (big.labels + 3) % 6, big.labels)
    subject = of_dataset(dataclasses.replace(tiny, train=Split(big.images + noise, labels)))
    state = torch.get_rng_state()
    found = audit(subject, near=False)
    assert torch.get_rng_state().equal(state)
    suspected = [s.picture for s in found.suspects if s.picture < 960]
    hits = sum(bool(changed[i]) for i in suspected)
    assert hits >= 0.9 * int(changed.sum()) and len(suspected) < 3 * hits
    assert found.subject.classes[found.suspects[0].suggested] in found.subject.classes
    assert items(found, "labels")[0].startswith("train ")


def test_cifar100s_known_duplicates_are_found(cifar: Dataset) -> None:
    copies = {4716: 29363, 3932: 21619}  # test and training numbers (Barz and Denzler, 2020)
    shots = {
        2627: 49155,
        3605: 9108,
        5633: 29503,
        9200: 28412,
        1706: 22404,
        4340: 42117,
        6042: 39358,
        1555: 29235,
        3591: 15177,
        8369: 4922,
    }
    known = copies | shots
    test, train = torch.tensor(list(known)), torch.tensor(list(known.values()))
    rest = torch.arange(400)
    some = dataclasses.replace(
        cifar,
        train=cifar.train[torch.cat([train, rest])],
        test=cifar.test[torch.cat([test, rest])],
    )
    found = audit(of_dataset(some), labels=False)
    names = {frozenset(found.subject.names[i] for i in group) for group in found.exact}
    assert {frozenset((f"train {i}", f"test {i}")) for i in range(2)} <= names
    alike = {frozenset((f"train {i}", f"test {i}")) for i in range(2, len(known))}
    assert len(alike & pairs_of(found)) >= 0.8 * len(alike)  # by a network that is not trained


def test_a_subject_of_a_dataset_has_all_pictures(tiny: Dataset) -> None:
    subject: Subject = of_dataset(tiny)
    assert len(subject) == 120 and subject.names[96] == "test 0"
    assert subject.parents[0] == "low" and subject.class_of(97) == "b"
