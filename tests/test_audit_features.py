"""The audit of photos by pretrained features."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from support.stages import stage_features

from hundredfold import Dataset, Split, quick
from hundredfold.audit.audit import BY_FEATURES, BY_NETWORKS, audit
from hundredfold.audit.features import (
    STRENGTH,
    photo_features,
    predict_by_features,
    why_no_features,
)
from hundredfold.audit.labels import FOLDS, find_label_issues, predict_out_of_sample
from hundredfold.audit.page import render_audit
from hundredfold.audit.pictures import AuditedPictures, load_audited_pictures
from hundredfold.augment import generator
from hundredfold.cli.main import main
from hundredfold.metrics.folds import stratified_folds
from hundredfold.models import installed
from hundredfold.models.installed import PACKAGES, installed_weights
from hundredfold.pictures.load import load_picture
from hundredfold.training.fitting import fitted
from hundredfold.training.setup import make_setup

KINDS = ("rows", "columns", "discs")
WRONG = {"discs/rows-3.png", "rows/columns-5.png", "columns/discs-7.png"}


def pattern(kind: str, seed: int, side: int = 64) -> Image.Image:
    """Return stripes or discs of random colours, width and place."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * 64 / side
    period, shift = rng.uniform(10, 16), rng.uniform(0, 16, 2)
    rows, columns = (
        np.sin(2 * np.pi * (v + s) / period) for v, s in zip((y, x), shift, strict=True)
    )
    mask = {"rows": rows > 0, "columns": columns > 0, "discs": rows + columns > 0.8}[kind]
    dark, light = rng.integers(0, 100, 3), rng.integers(150, 256, 3)
    noise = rng.integers(0, 20, (side, side, 3))
    return Image.fromarray((np.where(mask[..., None], light, dark) * 0.9 + noise).astype(np.uint8))


def write(root: Path, name: str, kind: str, seed: int, side: int = 64) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pattern(kind, seed, side).save(root / name)


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """A folder of 45 pictures with three wrong labels."""
    wrong = {name.split("/")[1]: name for name in WRONG}
    for i in range(45):
        kind = KINDS[i % 3]
        name = f"{kind}-{i // 3}.png"
        write(tmp_path / "patterns", wrong.get(name, f"{kind}/{name}"), kind, i)
    return tmp_path / "patterns"


def suspects(pictures: AuditedPictures) -> dict[str, str]:
    """Return the classes that the audit suggests, by the names of the pictures."""
    found = audit(pictures, near=False)
    assert found.method == BY_FEATURES
    return {pictures.names[i.picture]: pictures.classes[i.suggested] for i in found.label_issues}


def test_wrong_labels_of_photos_are_found(
    patterns: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    found = suspects(load_audited_pictures(str(patterns)))
    assert torch.get_rng_state().equal(state)
    assert found == {name: name.split("/")[1].split("-")[0] for name in WRONG}
    assert main(["audit", str(patterns)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 labels that are likely wrong" in said and BY_FEATURES in said
    content = json.loads((tmp_path / "audit/audit.json").read_text())
    assert content["method"] == BY_FEATURES
    assert {issue["picture"] for issue in content["labels"]} == WRONG
    assert BY_FEATURES in (tmp_path / "audit/audit.html").read_text()


@torch.no_grad()
def test_the_probabilities_are_those_of_scikit_learn_on_timms_features(patterns: Path) -> None:
    pictures, name = load_audited_pictures(str(patterns)), "tf_efficientnet_lite0"
    model = timm.create_model(name).eval()
    weights = installed_weights(name, model)
    model.load_state_dict(weights)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = torch.stack([load_picture(path, 224) for path in pictures.paths])
    features = stage_features(model, (images / 255 - mean) / std).numpy()
    labels = pictures.labels.numpy()
    folds = stratified_folds(pictures.labels, FOLDS, generator(0, "folds")).numpy()
    want = np.zeros((len(labels), 3))
    for fold in range(FOLDS):
        fitted = LogisticRegression(C=1 / STRENGTH, tol=1e-6, max_iter=1000)
        fitted.fit(features[folds != fold], labels[folds != fold])
        want[folds == fold] = fitted.predict_proba(features[folds == fold])
    got = predict_by_features(photo_features(pictures), pictures)
    np.testing.assert_allclose(got.numpy(), want, atol=2e-3)


def test_copies_do_not_confirm_each_other(patterns: Path) -> None:
    for i in range(6):
        write(patterns, f"discs/again-{i}.png", "rows", 1000)
    found = suspects(load_audited_pictures(str(patterns)))
    assert {f"discs/again-{i}.png" for i in range(6)} <= set(found)


def test_a_picture_without_others_of_its_class_is_not_suspected(patterns: Path) -> None:
    write(patterns, "single/0.png", "rows", 2000)
    for i in range(2):
        write(patterns, f"twice/{i}.png", "rows", 2001)
    found = suspects(load_audited_pictures(str(patterns)))
    assert set(found) == WRONG


def test_few_photos_are_not_checked(tmp_path: Path) -> None:
    for i in range(29):
        write(tmp_path / "few", f"{KINDS[i % 2]}/{i}.png", KINDS[i % 2], i)
    found = audit(load_audited_pictures(str(tmp_path / "few")), near=False)
    assert (
        "at least 30 pictures are needed, and there are 29." in found.skipped[0]
        and not found.method
    )
    assert "Labels were checked" not in render_audit(found)


def test_networks_check_small_pictures_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.audit.audit.MAX_EPOCHS", 4.0)
    for i in range(102):
        kind = KINDS[i % 3] if i % 20 else KINDS[(i + 1) % 3]
        write(tmp_path / "small", f"{kind}/{i}.png", KINDS[i % 3], i, side=63)
    pictures = load_audited_pictures(str(tmp_path / "small"))
    found = audit(pictures, near=False)
    reason = "the shorter side of the median picture is below 64 pixels"
    assert found.method == BY_NETWORKS.format(reason)
    config = fitted(quick(validation=0.0, balance="none"), len(pictures))
    split = Split(pictures.store, pictures.labels)
    dataset = Dataset("small", split, split[:0], pictures.classes)
    setup = make_setup(dataclasses.replace(config, epochs=4.0), dataset, torch.device("cpu"))
    probabilities, _ = predict_out_of_sample(setup, lambda _: None)
    assert list(found.label_issues) == find_label_issues(probabilities, pictures.labels)
    assert found.label_issues


def test_features_need_installed_weights_and_files_of_enough_pixels(
    patterns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = load_audited_pictures(str(patterns))
    assert not why_no_features(pictures)
    reason = why_no_features(dataclasses.replace(pictures, paths=()))  # such as CIFAR-100's
    assert reason == "the pictures are not files"
    name = "tf_efficientnet_lite0"
    nowhere = PACKAGES[name]._replace(name="no-such-package-of-weights")
    monkeypatch.setattr(installed, "PACKAGES", {name: nowhere})
    assert why_no_features(pictures) == "the pretrained weights are not installed"
    found = audit(pictures, near=False)
    assert (
        "at least 100 pictures are needed, and there are 45." in found.skipped[0]
        and not found.method
    )
