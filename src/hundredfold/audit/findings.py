"""What an audit finds, as sentences with the pictures that they are about."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hundredfold.audit.duplicates import Pair
from hundredfold.audit.labels import Suspect
from hundredfold.audit.subject import Subject
from hundredfold.data.decode import FileInfo
from hundredfold.metrics.scores import format_probability
from hundredfold.support.text import plural

SMALL, HUGE, LONG = 32, 50_000_000, 4.0
"""Shorter side in pixels below which a picture is small, pixels above which it is huge, and longer
side by shorter above which it is long."""
UNEQUAL = 10
"""Times the smallest class that the largest may have."""


class Finding(NamedTuple):
    """One kind of thing that was found."""

    key: str
    """Short name, for JSON."""
    title: str
    """What was found, without the number."""
    wrong: bool
    """Whether it should be mended before training; else it is only worth a look."""
    items: list[str]
    """Each in words."""
    pictures: list[tuple[int, ...]]
    """The pictures of each; empty where they cannot be shown."""


def file_findings(subject: Subject) -> list[Finding]:
    """Return what is odd about files."""
    unusable = [f"{name}: {reason}" for name, reason in subject.bad]
    passed = [f"{name}: {reason}" for name, reason in subject.passed]
    found = [Finding("unusable", "pictures that cannot be used", True, unusable, [])]
    for key, (title, check) in CHECKS.items():
        said = [check(fact, p) for fact, p in zip(subject.facts, subject.paths, strict=True)]
        which = [i for i, text in enumerate(said) if text]
        items = [f"{subject.names[i]}: {said[i]}" for i in which]
        found.append(Finding(key, title, key == "misnamed", items, [(i,) for i in which]))
    return [*found, Finding("passed_over", "other files, passed over", False, passed, [])]


def _misnamed(fact: FileInfo, path: Path) -> str:
    said = Image.registered_extensions().get(path.suffix.lower(), "")
    same = said in ("", fact.format) or {said, fact.format} == {"JPEG", "MPO"}
    return "" if same else f"is {fact.format}, not {said}"


def _mode(fact: FileInfo, _: Path) -> str:
    return "" if fact.mode == "RGB" else fact.mode


def _animated(fact: FileInfo, _: Path) -> str:
    return "its first frame counts" if fact.animated else ""


def _small(fact: FileInfo, _: Path) -> str:
    return _size(fact) if min(fact.width, fact.height) < SMALL else ""


def _huge(fact: FileInfo, _: Path) -> str:
    return _size(fact) if fact.width * fact.height > HUGE else ""


def _long(fact: FileInfo, _: Path) -> str:
    shorter, longer = sorted((fact.width, fact.height))
    return _size(fact) if longer > LONG * shorter else ""


def _size(fact: FileInfo) -> str:
    return f"{fact.width} x {fact.height}"


CHECKS: Mapping[str, tuple[str, Callable[[FileInfo, Path], str]]] = {
    "misnamed": ("files of another format than their name says", _misnamed),
    "mode": ("pictures that are not plain RGB", _mode),
    "animated": ("animated files", _animated),
    "small": (f"pictures below {SMALL} pixels", _small),
    "huge": (f"pictures above {HUGE // 10**6} megapixels", _huge),
    "long": (f"pictures more than {LONG:g} times as long as wide, or as wide as long", _long),
}
"""What each file is checked for: a title, and a function that says what is odd, if anything."""


def class_findings(subject: Subject) -> list[Finding]:
    """Return what is odd about the classes."""
    counts = class_counts(subject)
    training = counts.get("train") or next(iter(counts.values()), {})
    single = [f"{name}: 1 picture" for name, count in training.items() if count == 1]
    lost = [f"{name}: {reason}" for name, reason in subject.lost]
    unequal = []
    present = {name: count for name, count in training.items() if count}
    few, many = (pick(present, key=present.__getitem__, default="") for pick in (min, max))
    if present and present[many] >= UNEQUAL * present[few]:
        unequal = [f"{few}: {training[few]:,} to train on, {many}: {training[many]:,}"]
    unknown = [
        f"{name}: {plural(count, 'picture')} in {split}, none to train on"
        for split, names in counts.items()
        for name, count in names.items()
        if count and not training.get(name)
    ]
    missing = [
        f"{name}: none in {split}"
        for split, names in counts.items()
        for name in training
        if not names.get(name) and training[name]
    ]
    return [
        Finding("lost", "classes without a picture that can be used", True, lost, []),
        Finding("unknown", "classes that cannot be learned", True, unknown, []),
        Finding("singletons", "classes of a single picture", False, single, []),
        Finding("missing", "classes without pictures in a split", False, missing, []),
        Finding(
            "unequal", f"classes more than {UNEQUAL} times as large as others", False, unequal, []
        ),
    ]


def class_counts(subject: Subject) -> dict[str, dict[str, int]]:
    """Return how many pictures each class has in each split."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for split, label in zip(subject.splits, subject.labels.tolist(), strict=True):
        counts[split][label] += 1
    order = [name for name in ("train", "validation", "test", "") if name in counts]
    return {s: {name: counts[s][i] for i, name in enumerate(subject.classes)} for s in order}


def duplicate_findings(
    subject: Subject, exact: Iterable[Sequence[int]], near: Iterable[Pair] | None
) -> list[Finding]:
    """Return what is the same, by whether it is across splits, across classes, or within both.

    Near duplicates are left out where `near` is None: they were not looked for.
    """
    same: dict[tuple[int, ...], str] = {tuple(group): "the same" for group in exact}
    alike: dict[tuple[int, ...], str] = {
        (pair.first, pair.second): f"score {pair.score:.2f}" for pair in near or ()
    }
    found = []
    kinds = [("exact", "copies", same), ("near", "near duplicates", alike)]
    for key, title, groups in kinds[: 1 if near is None else 2]:
        for where, text, wrong in (
            ("splits", "in two splits", key == "exact"),
            ("classes", "in two classes of one split", key == "exact"),
            ("within", "in one class of one split", False),
        ):
            some = [group for group in groups if _where(subject, group) == where]
            items = [f"{_names(subject, group)} ({groups[group]})" for group in some]
            found.append(Finding(f"{key}_{where}", f"{title} {text}", wrong, items, some))
    return found


def _where(subject: Subject, group: Sequence[int]) -> str:
    if len({subject.splits[i] for i in group}) > 1:
        return "splits"
    return "classes" if len({int(subject.labels[i]) for i in group}) > 1 else "within"


def _names(subject: Subject, group: Sequence[int]) -> str:
    return " = ".join(f"{subject.names[i]} [{subject.class_of(i)}]" for i in group)


def label_findings(subject: Subject, found: Sequence[Suspect]) -> list[Finding]:
    """Return the pictures whose labels are likely wrong."""
    items = [
        f"{subject.names[s.picture]}: {subject.classes[s.given]}, rather "
        f"{subject.classes[s.suggested]} (its own has {format_probability(s.confidence)})"
        for s in found
    ]
    pictures: list[tuple[int, ...]] = [(suspect.picture,) for suspect in found]
    return [Finding("labels", "labels that are likely wrong", False, items, pictures)]
