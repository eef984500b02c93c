"""The steps of the audit, against slow versions and cleanlab."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.pets import scene
from torch import Tensor

from hundredfold import Dataset, Split, quick
from hundredfold.audit.duplicates import (
    SIDE,
    TEMPLATE,
    crowding,
    descriptors,
    find_copies,
    find_neighbours,
    match_pixels,
)
from hundredfold.audit.labels import FOLDS, assign_folds, find_label_issues
from hundredfold.models.whitenet import WhiteNet
from hundredfold.training.setup import make_setup
from hundredfold.training.state import first_state


def test_equal_digests_are_grouped() -> None:
    assert find_copies(["a", "b", "", "a", "c", "", "b", "a"]) == [[0, 3, 7], [1, 6]]


def test_neighbours_are_the_nearest_of_either_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    plain, mirrored = (F.normalize(torch.randn(9, 3, generator=rng)) for _ in range(2))
    monkeypatch.setattr("hundredfold.audit.duplicates.NEIGHBOURS", 2)
    monkeypatch.setattr("hundredfold.audit.duplicates.BLOCK", 4)
    similar = torch.maximum(plain @ plain.T, mirrored @ plain.T)
    want = {
        (min(i, int(j)), max(i, int(j)))
        for i in range(9)
        for j in similar[i].argsort(descending=True)[:3]
        if i != j
    }
    first, second, turned = find_neighbours(plain, mirrored)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == want
    for i, j, mirror in zip(first.tolist(), second.tolist(), turned.tolist(), strict=True):
        ways = [(mirrored[a] @ plain[b] > plain[a] @ plain[b]).item() for a, b in ((i, j), (j, i))]
        assert mirror in ways


def test_every_network_has_equal_weight() -> None:
    images = torch.stack(
        [torch.from_numpy(np.array(scene(i, 32))).permute(2, 0, 1) for i in range(6)]
    )
    names = tuple("abcdef")
    split = Split(images, torch.arange(6))
    dataset = Dataset("scenes", split, split, names)
    models = []
    for seed in (0, 1):
        setup = make_setup(quick(validation=0.0, seed=seed), dataset, torch.device("cpu"))
        model = first_state(setup).model
        assert isinstance(model, WhiteNet)
        models.append(model)
    cosines = []
    for some in ([models[0]], [models[1]], models):
        plain, mirrored = descriptors(some, images.split(4), setup.info)
        torch.testing.assert_close(plain.norm(dim=1), torch.ones(6))
        cosines.append(plain @ mirrored.T)
    assert not cosines[0].allclose(cosines[1], atol=1e-3)
    torch.testing.assert_close(cosines[2], (cosines[0] + cosines[1]) / 2)


def test_crowding_is_the_mean_cosine_of_the_other_neighbours() -> None:
    pairs = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 2, 3, 2]), torch.zeros(4).bool()
    got = crowding(pairs, torch.tensor([0.9, 0.8, 0.3, 0.7]), 5)
    least = 0.55
    want = [least + (0.8 - least) / 9, least + (0.7 - least) / 9, least + (0.7 - least) / 9]
    torch.testing.assert_close(got, torch.tensor([*want, least, least]))


def slow_match(first: Tensor, second: Tensor) -> float:
    """Return the best correlation of first's middle, at full scale, over places in second."""
    a, b = (
        F.interpolate(x[None] / 255, (SIDE, SIDE), mode="bilinear", antialias=True)[0].numpy()
        for x in (first, second)
    )
    corner, best = (SIDE - TEMPLATE) // 2, -1.0
    middle = a[:, corner : corner + TEMPLATE, corner : corner + TEMPLATE]
    middle = middle - middle.mean((1, 2), keepdims=True)
    for row in range(SIDE - TEMPLATE + 1):
        for column in range(SIDE - TEMPLATE + 1):
            part = b[:, row : row + TEMPLATE, column : column + TEMPLATE]
            part = part - part.mean((1, 2), keepdims=True)
            scale = math.sqrt((part**2).sum() * (middle**2).sum())
            best = max(best, float((part * middle).sum() / scale))
    return best


def test_the_match_is_the_best_normalised_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hundredfold.audit.duplicates.SCALES", (1.0,))
    rng = torch.Generator().manual_seed(1)
    first, second = torch.randint(0, 256, (2, 4, 3, 32, 32), generator=rng, dtype=torch.uint8)
    want = [max(slow_match(a, b), slow_match(b, a)) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(match_pixels(first, second), torch.tensor(want), atol=1e-4, rtol=0)


def test_a_shifted_scaled_darker_picture_matches() -> None:
    pixels = torch.from_numpy(np.array(scene(1, 40))).permute(2, 0, 1)
    first, shifted = pixels[None, :, 4:36, 4:36], (pixels[None, :, :32, 6:38] * 0.6).to(torch.uint8)
    larger = F.interpolate(first.float(), (37, 37), mode="bilinear")[:, :, 2:34, 2:34]
    other = torch.from_numpy(np.array(scene(2, 32))).permute(2, 0, 1)[None]
    assert (
        match_pixels(first, shifted) > 0.95 and match_pixels(first, larger.to(torch.uint8)) > 0.95
    )
    assert match_pixels(first, other) < 0.8
    black = torch.zeros_like(first)
    assert match_pixels(black, first).isfinite() and match_pixels(black, black).isfinite()


def test_every_class_is_spread_over_the_folds() -> None:
    labels = torch.tensor([0] * 30 + [1] * 9 + [2] * 2)
    folds = assign_folds(labels)
    for label, count in ((0, 30), (1, 9), (2, 2)):
        shares = folds[labels == label].bincount(minlength=FOLDS)
        assert shares.sum() == count and shares.max() - shares.min() <= 1


def test_label_issues_are_those_of_cleanlab() -> None:
    from cleanlab import filter as cleanlab

    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 7, (900,), generator=rng)
    labels = torch.where(
        torch.rand(900, generator=rng) < 0.1, torch.randint(0, 7, (900,), generator=rng), truth
    )
    logits = 2 * F.one_hot(truth, 7) + torch.randn(900, 7, generator=rng)
    probabilities = logits.softmax(1)
    want = cleanlab.find_label_issues(
        labels.numpy(),
        probabilities.double().numpy(),
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    found = find_label_issues(probabilities, labels)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    assert [s.picture for s in found] == [i for i in want.tolist() if own[i] < 0.5 / 7]
    assert len(found) > 20
    assert all(s.given == labels[s.picture] != s.suggested for s in found)
