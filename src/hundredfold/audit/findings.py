"""Describe what an audit found, one finding for each kind of problem."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hundredfold.audit.duplicates import NearDuplicate
from hundredfold.audit.labels import LabelIssue
from hundredfold.audit.pictures import AuditedPictures
from hundredfold.data.decode import FileInfo
from hundredfold.metrics.scores import format_probability
from hundredfold.pictures.walk import in_natural_order
from hundredfold.support.text import plural

SMALL, HUGE, LONG = 32, 50_000_000, 4.0
"""Shorter side in pixels below which a picture is small, number of pixels above which it is huge,
and ratio of the longer to the shorter side above which it is long."""
UNEQUAL = 10
"""Size of the largest class, relative to the smallest, from which classes are unequal."""


@dataclass(frozen=True)
class FindingItem:
    """One thing that was found."""

    name: str
    """The file, the class or the pictures that it is about."""
    detail: str
    """What was found."""
    pictures: tuple[int, ...] = ()
    """Indices of the pictures; empty if they cannot be shown."""

    @property
    def line(self) -> str:
        """Name and detail as one line of text."""
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class Finding:
    """All things of one kind that were found."""

    key: str
    """Short name, for JSON."""
    title: str
    """What was found, without the number."""
    wrong: bool
    """Whether it should be fixed before training; otherwise it is only worth a look."""
    items: list[FindingItem]


def file_findings(pictures: AuditedPictures) -> list[Finding]:
    """Return what was found about the files."""
    unusable = [FindingItem(*entry) for entry in pictures.unusable]
    other = [FindingItem(*entry) for entry in pictures.other_files]
    source = Path(pictures.source).name
    left_out = [FindingItem(source, sentence) for sentence in pictures.left_out]
    remarks = [FindingItem(source, sentence) for sentence in pictures.remarks]
    findings = [
        Finding("unusable", "pictures that cannot be used", True, unusable),
        Finding("left_out", "pictures that are left out", True, left_out),
        Finding("remarks", "remarks about names and folders", False, remarks),
    ]
    for key, (title, check) in CHECKS.items():
        details = map(check, pictures.facts, pictures.paths)
        items = [
            FindingItem(pictures.names[i], detail, (i,))
            for i, detail in enumerate(details)
            if detail
        ]
        findings.append(Finding(key, title, key == "misnamed", items))
    return [*findings, Finding("passed_over", "other files, not used", False, other)]


def _misnamed(fact: FileInfo, path: Path) -> str:
    named = Image.registered_extensions().get(path.suffix.lower(), "")
    same = named in ("", fact.format) or {named, fact.format} == {"JPEG", "MPO"}
    return "" if same else f"is {fact.format}, not {named}"


def _mode(fact: FileInfo, _: Path) -> str:
    return "" if fact.mode == "RGB" else fact.mode


def _animated(fact: FileInfo, _: Path) -> str:
    return "only its first frame is used" if fact.animated else ""


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
    "misnamed": ("files whose suffix does not match their format", _misnamed),
    "mode": ("pictures that are not plain RGB", _mode),
    "animated": ("animated files", _animated),
    "small": (f"pictures below {SMALL} pixels", _small),
    "huge": (f"pictures above {HUGE // 10**6} megapixels", _huge),
    "long": (f"pictures with one side more than {LONG:g} times the other", _long),
}
"""Checks of each file, by the key of their finding: a title, and a function that returns what it
found, or an empty string."""


def class_findings(pictures: AuditedPictures) -> list[Finding]:
    """Return what was found about the classes."""
    counts = count_by_split(pictures)
    training = counts.get("train") or next(iter(counts.values()), {})
    unknown = [
        FindingItem(name, f"{plural(count, 'picture')} in {split}, none to train on")
        for split, names in counts.items()
        for name, count in names.items()
        if count and not training.get(name)
    ]
    missing = [
        FindingItem(name, f"none in {split}")
        for split, names in counts.items()
        for name in training
        if not names.get(name) and training[name]
    ]
    single = [FindingItem(name, "1 picture") for name, count in training.items() if count == 1]
    lost = [FindingItem(*entry) for entry in pictures.lost_classes]
    return [
        Finding("lost", "classes without a usable picture", True, lost),
        Finding("unknown", "classes that cannot be learned", True, unknown),
        Finding("singletons", "classes with a single picture", False, single),
        Finding("missing", "classes without pictures in a split", False, missing),
        Finding(
            "unequal",
            f"classes at least {UNEQUAL} times as large as others",
            False,
            _unequal(training),
        ),
    ]


def _unequal(training: Mapping[str, int]) -> list[FindingItem]:
    """Return the smallest beside the largest class, if they are unequal; none otherwise."""
    present = {name: count for name, count in training.items() if count}
    few, many = (pick(present, key=present.__getitem__, default="") for pick in (min, max))
    if not present or present[many] < UNEQUAL * present[few]:
        return []
    counts = f"{plural(present[few], 'training picture')}; {many} has {present[many]:,}"
    return [FindingItem(few, counts)]


def count_by_split(pictures: AuditedPictures) -> dict[str, dict[str, int]]:
    """Return the number of pictures of each class in each split."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for split, label in zip(pictures.splits, pictures.labels.tolist(), strict=True):
        counts[split][label] += 1
    order = [name for name in ("train", "validation", "test", "") if name in counts]
    return {s: {name: counts[s][i] for i, name in enumerate(pictures.classes)} for s in order}


def duplicate_findings(
    pictures: AuditedPictures,
    copies: Iterable[Sequence[int]],
    near: Iterable[NearDuplicate] | None,
) -> list[Finding]:
    """Return the duplicates across splits, those across classes, and those within a class.

    Args:
        pictures: the audited pictures.
        copies: groups of pictures with the same content.
        near: near duplicates; None if they were not searched for.
    """
    same = [FindingItem(_names(pictures, group), "the same", tuple(group)) for group in copies]
    similar = [
        FindingItem(_names(pictures, pair[:2]), f"score {pair.score:.2f}", pair[:2])
        for pair in near or ()
    ]
    kinds = [("exact", "copies", same), ("near", "near duplicates", similar)]
    findings = []
    for key, title, items in kinds[: 1 if near is None else 2]:
        for scope, where, wrong in (
            ("splits", "in two splits", key == "exact"),
            ("classes", "in two classes of one split", key == "exact"),
            ("within", "in one class of one split", False),
        ):
            members = [item for item in items if _scope(pictures, item.pictures) == scope]
            findings.append(Finding(f"{key}_{scope}", f"{title} {where}", wrong, members))
    return findings


def group_findings(pictures: AuditedPictures) -> list[Finding]:
    """Return the groups, such as persons, that have pictures in several splits."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(pictures.groups):
        if group:
            members[group].append(i)
    items = []
    for name in in_natural_order(members):
        places: dict[str, list[int]] = defaultdict(list)
        for i in members[name]:
            places[pictures.splits[i] or "train"].append(i)
        if len(places) > 1:
            detail = ", ".join(f"{len(found):,} in {split}" for split, found in places.items())
            one_of_each = tuple(found[0] for found in places.values())
            items.append(FindingItem(name, detail, one_of_each))
    return [Finding("group_splits", "groups with pictures in several splits", False, items)]


def _scope(pictures: AuditedPictures, group: Sequence[int]) -> str:
    if len({pictures.splits[i] for i in group}) > 1:
        return "splits"
    return "classes" if len({int(pictures.labels[i]) for i in group}) > 1 else "within"


def _names(pictures: AuditedPictures, group: Sequence[int]) -> str:
    return " = ".join(f"{pictures.names[i]} [{pictures.class_of(i)}]" for i in group)


def label_findings(pictures: AuditedPictures, issues: Sequence[LabelIssue]) -> list[Finding]:
    """Return the pictures whose labels are likely wrong."""
    items = [
        FindingItem(
            pictures.names[issue.picture],
            f"looks like {pictures.classes[issue.suggested]}; the probability of its label, "
            f"{pictures.classes[issue.given]}, is {format_probability(issue.confidence)}",
            (issue.picture,),
        )
        for issue in issues
    ]
    return [Finding("labels", "labels that are likely wrong", False, items)]
