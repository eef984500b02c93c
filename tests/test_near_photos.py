"""Near duplicates among photos, by pretrained features and by pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support.pets import scene
from torch import Tensor

from hundredfold.audit.audit import BY_FEATURES, AuditResult, audit
from hundredfold.audit.near_photos import MOST_CROWDED, THRESHOLD, find_near_photos
from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.cli.main import main
from hundredfold.data.near import fitted_correlation, near_duplicates, thumbnails


def as_store(images: list[Image.Image], side: int = 32) -> Tensor:
    """Return pictures as (N, 3, side, side) uint8."""
    arrays = [np.array(image.resize((side, side), Image.Resampling.LANCZOS)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def pairs_of(found: AuditResult) -> set[frozenset[str]]:
    """Return the names of the near duplicates."""
    names = found.pictures.names
    return {frozenset((names[pair.first], names[pair.second])) for pair in found.near}


def test_near_duplicates_of_photos_are_found_and_other_photos_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(40):
        save(scene(i, 128), tmp_path / f"photos/{'ab'[i % 2]}/{i}.png")
    save(ImageOps.mirror(scene(0, 128)), tmp_path / "photos/b/mirror of 0.png")
    save(scene(1, 128).crop((8, 4, 124, 120)), tmp_path / "photos/b/crop of 1.png")
    save(scene(2, 128).rotate(2).crop((5, 5, 123, 123)), tmp_path / "photos/a/turn of 2.png")
    found = audit(load_audited_pictures(str(tmp_path / "photos")), labels=False)
    assert found.method == BY_FEATURES
    assert pairs_of(found) == {
        frozenset(("a/0.png", "b/mirror of 0.png")),
        frozenset(("b/1.png", "b/crop of 1.png")),
        frozenset(("a/2.png", "a/turn of 2.png")),
    }
    assert main(["audit", str(tmp_path / "photos"), "--no-labels"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 near duplicates in two classes of one split" in said and BY_FEATURES in said


def slow_scores(features: Tensor, store: Tensor) -> dict[tuple[int, int], float]:
    """Return the score of each pair of photos whose every other photo is a neighbour."""
    x = (features - features.mean(0)).double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    count, cosine, scores = len(x), x @ x.T, {}
    crowd = np.zeros(count)
    for i in range(count):
        others = sorted((cosine[i, j] for j in range(count) if j != i), reverse=True)[1:]
        crowd[i] = 0.55 + sum(max(0.0, value - 0.55) for value in others) / 9
    grey = thumbnails(store)
    for i in range(count):
        for j in range(i + 1, count):
            ways = [fitted_correlation(a[None], grey[j][None]) for a in (grey[i], grey[i].flip(2))]
            crowded = min(max(crowd[i], crowd[j]), MOST_CROWDED)
            scores[i, j] = float(cosine[i, j] + 0.5 * max(ways) - crowded)
    return scores


def test_the_score_is_that_of_a_slow_version() -> None:
    rng = torch.Generator().manual_seed(0)
    images = [scene(i) for i in range(3)]
    images += [image.crop((12, 10, 86, 84)) for image in images] + [scene(9), scene(10)]
    features = torch.randn(8, 16, generator=rng)
    features[3:6] = features[:3] + 0.2 * torch.randn(3, 16, generator=rng)
    store = as_store(images)
    linked, want = set(near_duplicates(store, torch.arange(8))), slow_scores(features, store)
    got = {(p.first, p.second): p.score for p in find_near_photos(features, store)}
    assert got.keys() == {pair for pair in want if want[pair] >= THRESHOLD or pair in linked}
    assert {(0, 3), (1, 4), (2, 5)} == got.keys() and not linked
    for pair, score in got.items():
        assert score == pytest.approx(want[pair], abs=1e-4)


def test_many_shots_of_one_scene_are_found() -> None:
    rng = torch.Generator().manual_seed(0)
    shots = [scene(1, 100).crop((i, i, 88 + i, 88 + i)) for i in range(12)]
    store = as_store([*shots, *(scene(i) for i in range(2, 42))])
    features = torch.randn(52, 64, generator=rng)
    features[:12] = features[0] + 0.05 * torch.randn(12, 64, generator=rng)
    found = {(pair.first, pair.second) for pair in find_near_photos(features, store)}
    assert {(i, i + 1) for i in range(11)} <= found
    assert all(second < 12 for _, second in found)


def test_photos_with_one_content_or_few_photos_have_scores() -> None:
    two = as_store([scene(0), ImageOps.mirror(scene(0))])
    (pair,) = find_near_photos(torch.randn(2, 8), two)
    assert pair[:2] == (0, 1) and np.isfinite(pair.score)
    same = find_near_photos(torch.ones(5, 8), two[:1].expand(5, -1, -1, -1))
    assert same and all(np.isfinite(pair.score) for pair in same)
    assert not find_near_photos(torch.ones(3, 8), as_store([scene(i) for i in range(3)]))
