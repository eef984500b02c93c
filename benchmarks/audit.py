"""Audit CIFAR-100 and compare the result with what people found there.

    python benchmarks/audit.py --pairs cifair100_half.csv

The pairs are test pictures with a duplicate in the training set, as judged by people (Barz and
Denzler, "Do We Train on Test Data?", 2020), in the columns test_index, train_index, judgment. The
judgment is 0 for an exact copy, 1 for pictures of one camera shot, 2 for very similar pictures. The
file may have only a share of the known pairs; --share says how many. The weights and the threshold
of the audit were chosen on the lines with an even number (from 0).
"""

import csv
import dataclasses
import time
from itertools import combinations
from pathlib import Path

import torch
import tyro
from common import code_digests, save_result

from hundredfold import load_cifar100
from hundredfold.audit.audit import AuditResult, audit
from hundredfold.audit.duplicates import THRESHOLD
from hundredfold.audit.page import render_audit
from hundredfold.audit.pictures import AuditedPictures, from_dataset

SOURCES = (
    "audit/duplicates.py",
    "audit/labels.py",
    "augment.py",
    "models/whitenet.py",
    "pictures/transforms.py",
    "training/optim.py",
)
"""Files of the package that decide the figures, besides the recipe `quick`."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Audit CIFAR-100 and compare the result with what people found there."""

    pairs: Path | None = None
    """CSV of known duplicates: test_index, train_index, judgment."""
    share: float = 0.5
    """Share of the known duplicates that the file has."""
    noise: float = 0.05
    """Share of the labels that are changed at random for a second audit."""
    page: Path = Path("audit.html")
    """Path of the page."""


def across(result: AuditResult) -> set[tuple[int, int]]:
    """Return the duplicates across the splits as pairs (test index, training index)."""
    splits = result.pictures.splits
    first_test = splits.index("test")
    duplicates = [pair[:2] for pair in result.near]
    duplicates += [pair for group in result.copies for pair in combinations(group, 2)]
    return {(j - first_test, i) for i, j in duplicates if splits[i] != splits[j]}


def recall(got: set[tuple[int, int]], rows: list[tuple[int, int, int]]) -> dict[str, list[int]]:
    """Return, by judgment, how many known duplicates were found and how many there are."""
    counts = {str(judgment): [0, 0] for judgment in (0, 1, 2)}
    for test, train, judgment in rows:
        counts[str(judgment)][0] += (test, train) in got
        counts[str(judgment)][1] += 1
    return counts


def compare(result: AuditResult, path: Path, share: float) -> dict[str, object]:
    """Return how many known duplicates were found, and the estimated precision."""
    with path.open() as file:
        rows = [
            (int(r["test_index"]), int(r["train_index"]), int(r["judgment"]))
            for r in csv.DictReader(file)
        ]
    got = across(result)
    tests = {test for test, _ in got}
    halves = {"chosen on": rows[::2], "unseen": rows[1::2]}
    hits = sum((test, train) in got for test, train, _ in rows)
    known_tests = {test for test, _, _ in rows}
    return {
        "threshold": THRESHOLD,
        **{name: recall(got, half) for name, half in halves.items()},
        "pairs across splits": len(got),
        "test pictures in them": len(tests),
        "known pairs among them": hits,
        "estimated precision, by test picture": len(tests & known_tests) / share / len(tests),
    }


def noisy(pictures: AuditedPictures, share: float) -> tuple[AuditedPictures, torch.Tensor]:
    """Return the pictures with a share of their labels changed, and where, (N,) bool."""
    rng = torch.Generator().manual_seed(0)
    changed = torch.rand(len(pictures), generator=rng) < share
    other = torch.randint(1, len(pictures.classes), (len(pictures),), generator=rng)
    labels = torch.where(
        changed, (pictures.labels + other) % len(pictures.classes), pictures.labels
    )
    return dataclasses.replace(pictures, labels=labels), changed


def judge_noise(pictures: AuditedPictures, share: float) -> dict[str, object]:
    """Return how many changed labels are found, and among how many label issues."""
    noisy_pictures, changed = noisy(pictures, share)
    issues = audit(noisy_pictures, near=False).label_issues
    hits = [bool(changed[issue.picture]) for issue in issues]
    count = int(changed.sum())
    return {
        "changed": count,
        "suspects": len(issues),
        "recall": sum(hits) / count,
        "precision among the first as many": sum(hits[:count]) / count,
    }


def main() -> None:
    """Audit, compare, save."""
    options = tyro.cli(Options)
    pictures = from_dataset(load_cifar100())
    started = time.perf_counter()
    audited = audit(pictures)
    seconds = time.perf_counter() - started
    options.page.write_text(render_audit(audited))
    issues = [pictures.splits[issue.picture] for issue in audited.label_issues]
    result: dict[str, object] = {
        "sources": code_digests(SOURCES),
        "seconds": round(seconds, 1),
        "found": {f.key: len(f.items) for f in audited.findings if f.items},
        "suspects": {name: issues.count(name) for name in ("train", "test")},
    }
    if options.pairs:
        result["known duplicates"] = compare(audited, options.pairs, options.share)
    print(result, flush=True)
    result["labels changed at random"] = judge_noise(pictures, options.noise)
    print(result["labels changed at random"])
    save_result("audit", "an audit of CIFAR-100, and what people found there", result)


if __name__ == "__main__":
    main()
