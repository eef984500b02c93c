"""The audit of pictures whose faults are known."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from playwright.sync_api import Browser
from support.pets import scene

from hundredfold import Dataset, Split
from hundredfold.audit.audit import AuditResult, audit, cleaned_list
from hundredfold.audit.findings import count_by_split
from hundredfold.audit.page import render_audit
from hundredfold.audit.pictures import AuditedPictures, from_dataset, load_audited_pictures
from hundredfold.cli.audit import show_findings
from hundredfold.cli.main import main
from hundredfold.data.load import load_data
from hundredfold.support.errors import UserError

RNG = np.random.default_rng(5)


def save(image: Image.Image, path: Path) -> Path:
    """Write a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def items(found: AuditResult, key: str) -> list[str]:
    """Return the lines of a finding."""
    return next(
        [item.line for item in finding.items] for finding in found.findings if finding.key == key
    )


def pairs_of(found: AuditResult) -> set[frozenset[str]]:
    """Return the names of the near duplicates."""
    names = found.pictures.names
    return {frozenset((names[pair.first], names[pair.second])) for pair in found.near}


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder with one of each fault."""
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
    found = audit(load_audited_pictures(str(faulty)), labels=False)
    assert items(found, "unusable")[0].startswith("train/cat/broken.jpg: cannot be read")
    assert items(found, "misnamed") == ["train/cat/really.jpg: is PNG, not JPEG"]
    assert {"train/cat/grey.png: L"} < set(items(found, "mode"))
    assert items(found, "animated") == ["train/cat/moves.gif: only its first frame is used"]
    assert items(found, "small") == ["train/cat/small.png: 20 x 20"]
    assert items(found, "long") == ["train/cat/long.png: 400 x 60"]
    assert items(found, "passed_over") == [
        "notes.txt: beside the folder train, not in it"
    ] or items(found, "passed_over") == ["notes.txt: not a picture by its name"]
    assert items(found, "unknown") == ["owl: 1 picture in test, none to train on"]
    assert items(found, "singletons") == ["hen: 1 picture"]
    assert items(found, "missing") == ["hen: none in test"]
    assert items(found, "unequal") == ["hen: 1 training picture; cat has 17"]
    (leaked,) = items(found, "exact_splits")
    assert leaked == "train/dog/0.png [dog] = test/dog/copy.png [dog]: the same"
    assert len(items(found, "exact_classes")) == len(items(found, "exact_within")) == 1
    assert "copy of 2" in items(found, "exact_classes")[0]
    assert "copy of 3" in items(found, "exact_within")[0]
    near = pairs_of(found)
    assert frozenset(("train/dog/4.png", "test/dog/shot of 4.png")) in near
    assert frozenset(("train/cat/5.png", "test/cat/mirror of 5.png")) in near
    strangers = {p for p in near if all(n.split("/")[2].split(".")[0].isdigit() for n in p)}
    assert not strangers


def test_the_cleaned_list_trains_without_what_is_wrong(faulty: Path, tmp_path: Path) -> None:
    found = audit(load_audited_pictures(str(faulty)), labels=False, near=False)
    assert "Near duplicates were not searched for: not requested." in found.skipped
    kinds = {finding.key for finding in found.findings}
    assert "exact_splits" in kinds and "labels" not in kinds  # only what was searched for
    assert not any(kind.startswith("near_") for kind in kinds)
    (tmp_path / "clean.csv").write_text(cleaned_list(found))
    said: list[str] = []
    cleaned = load_data(str(tmp_path / "clean.csv"), said.append)
    names = [Path(name).name for split in cleaned.splits.values() for name in split.names]
    gone = {"0.png", "broken.jpg", "2.png", "copy of 2.png", "unknown.png"}
    assert not gone & set(names)
    assert len({"3.png", "copy of 3.png"} & set(names)) == 1
    assert {"copy.png", "shot of 4.png", "really.jpg"} < set(names)
    again = audit(load_audited_pictures(str(tmp_path / "clean.csv")), labels=False, near=False)
    assert {finding.key for finding in again.wrong} == {"misnamed"}
    assert (faulty / "train/cat/broken.jpg").exists()


@pytest.mark.parametrize("name", ["None", "cat "])
def test_a_class_that_a_table_cannot_name_is_refused(name: str, tmp_path: Path) -> None:
    for i in range(4):
        save(scene(i), tmp_path / "pets" / ("cat", name)[i % 2] / f"{i}.png")
    pictures = load_audited_pictures(str(tmp_path / "pets"))
    with pytest.raises(
        UserError, match=f"A table cannot hold the class name '{name}': it would be read as another"
    ):
        cleaned_list(audit(pictures, labels=False, near=False))


def test_the_command_writes_a_page_and_with_strict_fails_on_findings(
    faulty: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = f"audit {faulty} --no-labels --fix clean.csv"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "copies in two splits" in said
    assert "Table   clean.csv, which leaves out 6 pictures" in said
    content = json.loads((tmp_path / "audit/audit.json").read_text())
    assert content["findings"]["unusable"]["items"] and content["pictures"] == 52
    page = (tmp_path / "audit/audit.html").read_text()
    assert "data:image/png;base64" in page and "Worth a look" in page
    assert main([*command.split(), "--strict"]) == 1
    assert "Fix these problems" in capsys.readouterr().err
    assert main(["audit", "nowhere"]) == 2
    for what, why in (("sample", "are not separate files"), (zipped(faulty), "is an archive")):
        assert main(["audit", what, "--fix", "x.csv", "--out", "none"]) == 2
        assert why in capsys.readouterr().err
    assert not Path("none").exists()  # refused before the audit


def test_a_list_is_written_only_where_it_is_safe_and_useful(
    faulty: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "list.csv"
    table.write_text(cleaned_list(audit(load_audited_pictures(str(faulty)), labels=False)))
    before = table.read_text()
    for fix, why in (
        ("list.csv", "list.csv is the audited table"),
        ("clean.tsv", "must end in .csv"),
        ("nowhere/clean.csv", "There is no folder nowhere"),
    ):
        assert main(["audit", "list.csv", "--fix", fix, "--out", "none"]) == 2
        assert why in capsys.readouterr().err
    assert table.read_text() == before
    assert not Path("none").exists()


def test_what_a_training_leaves_out_is_found(
    faulty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (faulty / "loose.png", faulty / "train/Cat/1.png"):
        save(scene(400), path)
    found = audit(load_audited_pictures(str(faulty)), labels=False, near=False)
    (left_out,), (remark,) = items(found, "left_out"), items(found, "remarks")
    assert left_out == "pets: 1 picture outside of any folder belongs to none of the splits"
    assert "Cat" in remark and "cat" in remark
    assert "left_out" in {finding.key for finding in found.wrong}


def test_rows_without_a_split_are_training_pictures(faulty: Path, tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for i in range(10):
        rows.append(f"{faulty}/train/{'cat' if i % 2 else 'dog'}/{i}.png,{'ab'[i % 2]},")
    rows += [f"{faulty}/test/dog/100.png,a,test", f"{faulty}/test/dog/copy.png,a,test"]
    (tmp_path / "some.csv").write_text("\n".join(rows))
    pictures = load_audited_pictures(str(tmp_path / "some.csv"))
    found = audit(pictures, labels=False, near=False)
    assert count_by_split(pictures) == {"train": {"a": 5, "b": 5}, "test": {"a": 2, "b": 0}}
    assert items(found, "unknown") == []
    assert items(found, "missing") == ["b: none in test"]
    assert len(items(found, "exact_splits")) == 1


def zipped(folder: Path) -> str:
    """Return an archive of a folder."""
    return shutil.make_archive(str(folder), "zip", folder)


def test_data_is_found_as_by_train(tmp_path: Path) -> None:
    save(scene(0), tmp_path / "sample/cat/1.png")  # a folder here of a built-in name
    assert len(load_audited_pictures("sample")) == 3000


def test_names_without_a_suffix_are_not_misnamed(tmp_path: Path) -> None:
    for i in range(4):
        save(scene(i), tmp_path / f"{i}.png").rename(tmp_path / f"{i:040x}")
    rows = [f"{i:040x},{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    found = audit(load_audited_pictures(str(tmp_path / "list.csv")))
    assert items(found, "misnamed") == []


def test_a_very_long_example_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = save(scene(0), tmp_path / "pets/a/0.png").read_bytes()
    for i in range(1, 1000):
        (tmp_path / f"pets/a/{i}.png").write_bytes(first)
    save(scene(1), tmp_path / "pets/b/0.png")
    found = audit(load_audited_pictures(str(tmp_path / "pets")), labels=False, near=False)
    assert len(items(found, "exact_within")[0]) > 10_000
    show_findings(found)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert 200 < max(map(len, lines)) < 300


def test_names_are_text_on_the_page_not_markup(tmp_path: Path) -> None:
    for i in range(4):
        save(scene(i), tmp_path / f"pets/<b>&{i % 2}/<script>{i // 2}.png")
    page = render_audit(audit(load_audited_pictures(str(tmp_path / "pets")), labels=False))
    assert "<script>" not in page and "<b>&" not in page
    assert "&lt;b&gt;&amp;0" in page


def test_punctuation_in_a_name_does_not_change_what_is_found(tmp_path: Path) -> None:
    for name in ("a: b (c).png", "d: e (f.png"):
        save(scene(0, 20), tmp_path / "pets/x" / name)
    save(scene(1), tmp_path / "pets/y/1.png")
    result = audit(load_audited_pictures(str(tmp_path / "pets")), labels=False, near=False)
    found = {finding.key: finding.items for finding in result.findings}
    assert [(item.name, item.detail) for item in found["small"]] == [
        ("x/a: b (c).png", "20 x 20"),
        ("x/d: e (f.png", "20 x 20"),
    ]
    (copies,) = found["exact_within"]
    assert copies.line == "x/a: b (c).png [x] = x/d: e (f.png [x]: the same"
    assert [result.pictures.names[i] for i in copies.pictures] == [
        "x/a: b (c).png",
        "x/d: e (f.png",
    ]
    texts = re.findall('<span class="text">(.*?)</span>', render_audit(result))
    assert sorted(texts) == ["20 x 20", "20 x 20", "the same"]


def test_a_phone_shows_the_page(tmp_path: Path, browser: Browser) -> None:
    content = save(scene(0, 20), tmp_path / "pets/x" / f"{'W' * 200}.png").read_bytes()
    for i in range(6):
        (tmp_path / f"pets/x/{i}.png").write_bytes(content)
    save(scene(1), tmp_path / f"pets/{'W' * 200}/1.png")
    result = audit(load_audited_pictures(str(tmp_path / "pets")), labels=False, near=False)
    (tmp_path / "audit.html").write_text(render_audit(result))
    page = browser.new_context(viewport={"width": 400, "height": 800}).new_page()
    page.goto((tmp_path / "audit.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.eval_on_selector_all("h1, h3, .group, figure, li", wide) == 0


def test_nothing_to_audit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/bad.png").write_text("x")
    with pytest.raises(UserError, match="no picture that can be read"):
        audit(load_audited_pictures(str(tmp_path / "pets")))


def test_three_pictures_are_audited(tmp_path: Path) -> None:
    for i in range(3):
        save(scene(i), tmp_path / f"pets/class{i % 2}/{i}.png")
    found = audit(load_audited_pictures(str(tmp_path / "pets")))
    assert "at least 30 pictures are needed, and there are 3." in found.skipped[0]
    assert not found.near and not found.wrong
    assert "No problems to fix before training" in render_audit(found)


@pytest.mark.long
def test_wrong_labels_are_found(tiny: Dataset) -> None:
    big = tiny.train[torch.arange(384) % 96]
    rng = torch.Generator().manual_seed(0)  # the same noise whatever tests ran before
    noise = torch.randint(0, 20, big.images.shape, dtype=torch.uint8, generator=rng)
    changed = torch.arange(384) % 37 == 0
    labels = torch.where(changed, (big.labels + 3) % 6, big.labels)
    pictures = from_dataset(dataclasses.replace(tiny, train=Split(big.images + noise, labels)))
    state = torch.get_rng_state()
    found = audit(pictures, near=False)
    assert torch.get_rng_state().equal(state)
    issues = [s.picture for s in found.label_issues if s.picture < 384]
    hits = sum(bool(changed[i]) for i in issues)
    assert hits >= 0.9 * int(changed.sum()) and len(issues) < 3 * hits
    assert found.pictures.classes[found.label_issues[0].suggested] in found.pictures.classes
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
    found = audit(from_dataset(some), labels=False)
    names = {frozenset(found.pictures.names[i] for i in group) for group in found.copies}
    assert {frozenset((f"train {i}", f"test {i}")) for i in range(2)} <= names
    alike = {frozenset((f"train {i}", f"test {i}")) for i in range(2, len(known))}
    assert len(alike & pairs_of(found)) >= 0.8 * len(alike)  # by a network that is not trained


def test_the_pictures_of_a_dataset_are_those_of_all_splits(tiny: Dataset) -> None:
    pictures: AuditedPictures = from_dataset(tiny)
    assert len(pictures) == 120 and pictures.names[96] == "test 0"
    assert pictures.parents[0] == "low" and pictures.class_of(97) == "b"
