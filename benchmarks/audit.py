"""Audit CIFAR-100, and compare what is found with what people found there.

    python benchmarks/audit.py --pairs cifair100_half.csv

The pairs are test pictures with a duplicate in the training set, as judged by hand (Barz and
Denzler, "Do We Train on Test Data?", 2020): columns test_index, train_index, judgment, of which 0
is an exact copy, 1 one camera shot, 2 very similar. They may be a part of all; --share says which.
The weights and the threshold were chosen on the lines with an even number (from 0).
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
from hundredfold.audit.audit import Audit, audit
from hundredfold.audit.duplicates import THRESHOLD
from hundredfold.audit.page import render
from hundredfold.audit.subject import Subject, of_dataset

SOURCES = (
    "audit/duplicates.py",
    "audit/labels.py",
    "augment.py",
    "models/whitenet.py",
    "training/optim.py",
)
"""What decides the figures, beside the recipe `quick`."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Audit CIFAR-100, and compare what is found with what people found there."""

    pairs: Path | None = None
    """CSV of known duplicates: test_index, train_index, judgment."""
    share: float = 0.5
    """Share of all known duplicates that the file has."""
    noise: float = 0.05
    """Share of the labels that are changed at random, in a second audit."""
    page: Path = Path("audit.html")
    """Where to write the page."""


def across(found: Audit) -> set[tuple[int, int]]:
    """Return duplicates across the splits: (test number, training number)."""
    splits = found.subject.splits
    first_test = splits.index("test")
    alike = [pair[:2] for pair in found.near]
    alike += [pair for group in found.exact for pair in combinations(group, 2)]
    return {(j - first_test, i) for i, j in alike if splits[i] != splits[j]}


def recall(got: set[tuple[int, int]], rows: list[tuple[int, int, int]]) -> dict[str, list[int]]:
    """Return by judgment how many of the known duplicates were found, and how many there are."""
    counts = {str(judgment): [0, 0] for judgment in (0, 1, 2)}
    for test, train, judgment in rows:
        counts[str(judgment)][0] += (test, train) in got
        counts[str(judgment)][1] += 1
    return counts


def compare(found: Audit, path: Path, share: float) -> dict[str, object]:
    """Return how many of the known duplicates were found, and at what precision."""
    with path.open() as file:
        rows = [
            (int(r["test_index"]), int(r["train_index"]), int(r["judgment"]))
            for r in csv.DictReader(file)
        ]
    got = across(found)
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


def noisy(subject: Subject, share: float) -> tuple[Subject, torch.Tensor]:
    """Return the subject with a share of its labels changed, and which, (N,) bool."""
    rng = torch.Generator().manual_seed(0)
    changed = torch.rand(len(subject), generator=rng) < share
    other = torch.randint(1, len(subject.classes), (len(subject),), generator=rng)
    labels = torch.where(changed, (subject.labels + other) % len(subject.classes), subject.labels)
    return dataclasses.replace(subject, labels=labels), changed


def judge_noise(subject: Subject, share: float) -> dict[str, object]:
    """Return how many changed labels are found, and among how many suspects."""
    changed_subject, changed = noisy(subject, share)
    found = audit(changed_subject, near=False).suspects
    hits = [bool(changed[suspect.picture]) for suspect in found]
    count = int(changed.sum())
    return {
        "changed": count,
        "suspects": len(found),
        "recall": sum(hits) / count,
        "precision among the first as many": sum(hits[:count]) / count,
    }


def main() -> None:
    """Audit, compare, save."""
    options = tyro.cli(Options)
    subject = of_dataset(load_cifar100())
    started = time.perf_counter()
    found = audit(subject)
    seconds = time.perf_counter() - started
    options.page.write_text(render(found))
    suspects = [subject.splits[suspect.picture] for suspect in found.suspects]
    result: dict[str, object] = {
        "sources": code_digests(SOURCES),
        "seconds": round(seconds, 1),
        "found": {f.key: len(f.items) for f in found.findings if f.items},
        "suspects": {name: suspects.count(name) for name in ("train", "test")},
    }
    if options.pairs:
        result["known duplicates"] = compare(found, options.pairs, options.share)
    print(result, flush=True)
    result["labels changed at random"] = judge_noise(subject, options.noise)
    print(result["labels changed at random"])
    save_result("audit", "an audit of CIFAR-100, and what people found there", result)


if __name__ == "__main__":
    main()
