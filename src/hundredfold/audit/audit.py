"""Audit a dataset before training: files, classes, duplicates, labels."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hundredfold.audit.duplicates import (
    NearDuplicate,
    descriptors,
    find_copies,
    find_near_duplicates,
)
from hundredfold.audit.features import (
    MIN_PHOTOS,
    MIN_SIDE,
    judge_by_features,
    why_no_features,
)
from hundredfold.audit.findings import (
    Finding,
    class_findings,
    duplicate_findings,
    file_findings,
    group_findings,
    label_findings,
)
from hundredfold.audit.labels import (
    LabelIssue,
    count_audit_steps,
    find_label_issues,
    predict_out_of_sample,
)
from hundredfold.audit.pictures import AuditedPictures
from hundredfold.data.archive import is_archive
from hundredfold.data.dataset import Dataset, Split
from hundredfold.data.table import is_kept
from hundredfold.data.unpack import unpacked_folder
from hundredfold.models.whitenet import WhiteNet
from hundredfold.recipes import quick
from hundredfold.support.console import counted
from hundredfold.support.errors import UserError
from hundredfold.support.text import escape_formula
from hundredfold.training.fitting import fitted
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

NOT_TEXT = re.compile(r"[\n\ud800-\udfff]")
"""A line break, or a surrogate, by which Python represents bytes of a path that are not UTF-8."""
MIN_PICTURES = 100
"""Fewest pictures whose labels are checked by networks, which learn nothing from fewer."""
MAX_EPOCHS = 20.0
"""Most epochs of a training that checks labels."""
MAX_PICTURES = 100_000
"""Most pictures among which near duplicates are searched: each is compared with every other."""
BY_NETWORKS = "The audit used small networks, because {}."
"""How labels and near duplicates were judged, and why."""
BY_FEATURES = (
    "The audit used pretrained features, because the pictures are photos of at least "
    f"{MIN_SIDE} pixels."
)
"""The same for photos."""


@dataclass(frozen=True)
class AuditResult:
    """What an audit found."""

    pictures: AuditedPictures
    findings: tuple[Finding, ...]
    """One for each kind of problem that was searched for, without items if nothing was found."""
    copies: tuple[tuple[int, ...], ...]
    """Groups of pictures with the same content."""
    near: tuple[NearDuplicate, ...]
    """Near duplicates that are not copies."""
    label_issues: tuple[LabelIssue, ...]
    """Pictures whose labels are likely wrong."""
    skipped: tuple[str, ...]
    """Sentences that say what was not searched for, and why."""
    method: str
    """A sentence that says how labels and near duplicates were judged, and why; empty if neither
    was searched for."""

    @property
    def wrong(self) -> list[Finding]:
        """Findings that should be fixed before training."""
        return [finding for finding in self.findings if finding.wrong and finding.items]


def audit(pictures: AuditedPictures, *, near: bool = True, labels: bool = True) -> AuditResult:
    """Audit the pictures of a source.

    Args:
        pictures: as returned by `load_audited_pictures` or `from_dataset`.
        near: search for near duplicates.
        labels: search for labels that are likely wrong.

    Both are searched for by pretrained features if `why_no_features` has no objection. Otherwise
    three small networks are trained to check the labels, and those or an untrained one find near
    duplicates.

    Raises:
        UserError: no picture can be read, or the pretrained weights are damaged.
    """
    if not len(pictures):
        raise UserError(f"{pictures.source} has no picture that can be read.")
    copies = find_copies(pictures.digests)
    no_features = why_no_features(pictures) if labels or near else "not requested"
    fewest = MIN_PICTURES if no_features else MIN_PHOTOS
    no_labels = _why_no_labels(pictures, fewest) if labels else "not requested"
    no_near = _why_no_near(pictures) if near else "not requested"
    judge = _judge_by_networks if no_features else judge_by_features
    with torch.random.fork_rng([]):
        issues, pairs = judge(pictures, labels=not no_labels, near=not no_near)
    digests = pictures.digests
    pairs = [p for p in pairs if not digests[p.first] or digests[p.first] != digests[p.second]]
    findings = [
        *(file_findings(pictures) if pictures.paths else []),
        *class_findings(pictures),
        *duplicate_findings(pictures, copies, None if no_near else pairs),
        *(group_findings(pictures) if any(pictures.groups) else []),
        *([] if no_labels else label_findings(pictures, issues)),
    ]
    skipped = {"Labels that are likely wrong": no_labels, "Near duplicates": no_near}
    return AuditResult(
        pictures,
        tuple(findings),
        tuple(tuple(group) for group in copies),
        tuple(pairs),
        tuple(issues),
        tuple(f"{what} were not searched for: {why}." for what, why in skipped.items() if why),
        "" if no_labels and no_near else _method(no_features),
    )


def _as_dataset(pictures: AuditedPictures) -> Dataset:
    """Return all pictures as a training split."""
    everything = Split(pictures.store, pictures.labels, names=pictures.names)
    return Dataset(pictures.source, everything, everything[:0], pictures.classes)


def _why_no_labels(pictures: AuditedPictures, fewest: int) -> str:
    """Return why labels cannot be checked; an empty string if they can."""
    if len(pictures.classes) < 2:
        return "there is only one class"
    if len(pictures) < fewest:
        return f"at least {fewest} pictures are needed, and there are {len(pictures)}"
    return ""


def _why_no_near(pictures: AuditedPictures) -> str:
    """Return why near duplicates cannot be searched for; an empty string if they can."""
    if len(pictures) < 2:
        return "there is only one picture"
    if len(pictures) > MAX_PICTURES:
        return f"each picture is compared with every other, and there are over {MAX_PICTURES:,}"
    return ""


def _method(no_features: str) -> str:
    """Return how the pictures were judged."""
    return BY_NETWORKS.format(no_features) if no_features else BY_FEATURES


def _judge_by_networks(
    pictures: AuditedPictures, *, labels: bool, near: bool
) -> tuple[list[LabelIssue], list[NearDuplicate]]:
    """Return likely label errors and near duplicates, by networks that are trained for it.

    Without labels to check, an untrained network finds the near duplicates.
    """
    issues: list[LabelIssue] = []
    pairs: list[NearDuplicate] = []
    if not (labels or near):
        return issues, pairs
    config = fitted(quick(validation=0.0, balance="none"), len(pictures))
    config = replace(config, epochs=min(config.epochs, MAX_EPOCHS))
    setup = make_setup(config, _as_dataset(pictures), torch.device("cpu"))
    states: list[State] = []
    if labels:
        steps = count_audit_steps(len(pictures), setup.config)
        with counted("Checking labels", steps) as advance:
            probabilities, states = predict_out_of_sample(setup, advance)
        alone = pictures.labels.bincount()[pictures.labels] == 1
        probabilities[alone] = 1 / len(pictures.classes)  # the network never saw the class
        issues = find_label_issues(probabilities, pictures.labels)
    if near:
        pairs = _near_duplicates(setup, states or [first_state(setup)])
    return issues, pairs


def _near_duplicates(setup: Setup, states: Sequence[State]) -> list[NearDuplicate]:
    pictures = setup.train_split
    models = [state.model for state in states if isinstance(state.model, WhiteNet)]  # `quick` is
    with counted("Comparing", len(pictures)) as advance:
        plain, mirrored = descriptors(models, pictures.parts(), setup.info)
        return find_near_duplicates(pictures.images, plain, mirrored, advance)


def refuse_list(pictures: AuditedPictures) -> None:
    """Refuse to list pictures that a table cannot name.

    Raises:
        UserError: the pictures are not files, are in an archive or in shards, or a class or a file
            has a name that a table cannot hold.
    """
    if not pictures.paths:
        raise UserError(
            f"--fix lists picture files, but the pictures of {pictures.source} are not separate "
            "files. Omit --fix."
        )
    if is_archive(Path(pictures.source)):
        raise UserError(
            f"{pictures.source} is an archive, and a table cannot name files in an archive. Unpack "
            "it, and audit the folder."
        )
    if pictures.paths[0].is_relative_to(unpacked_folder()):
        raise UserError(
            f"{pictures.source} has its pictures in shards, and a table cannot name files in "
            "shards. Audit the folder that they were made from."
        )
    for path, name in zip(pictures.paths, pictures.names, strict=True):
        if NOT_TEXT.search(str(path)):
            raise UserError(
                f"The name of {name} contains a line break or is not valid UTF-8: rename the file."
            )
    for name in sorted({*pictures.classes, *pictures.parents} - {""}):
        if not is_kept(name):
            raise UserError(
                f"A table cannot hold the class name {name!r}: it would be read as another name or "
                "as a missing one. Rename the folder."
            )


def refuse_target(pictures: AuditedPictures, path: Path) -> None:
    """Refuse to write a list over the audited table, or to a file that cannot be trained on.

    Raises:
        UserError: the file is the source or no .csv, or its folder does not exist.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"--fix is {str(path)!r}, but must end in .csv, as it writes a CSV table.")
    if path.resolve() == Path(pictures.source).resolve():
        raise UserError(f"{path} is the audited table. Name another file for --fix.")
    if not path.parent.is_dir():
        raise UserError(
            f"There is no folder {path.parent} in which --fix could write {path.name}. Create the "
            "folder, or name another file."
        )


def cleaned_list(result: AuditResult) -> str:
    """Return a table, for `--data`, of the pictures without those that are certainly wrong.

    It leaves out files that cannot be used, classes that cannot be learned, all but one of the
    copies within a class (if some are in a test or validation split, the training copies), and all
    copies in two classes of one split. It keeps near duplicates and labels that are likely wrong,
    because people have to judge those.

    Raises:
        UserError: see `refuse_list`.
    """
    pictures = result.pictures
    refuse_list(pictures)
    left_out = set()
    for group in result.copies:
        left_out |= set(group) - _copies_to_keep(pictures, group)
    learned = {
        label
        for label, split in zip(pictures.labels.tolist(), pictures.splits, strict=True)
        if split in ("train", "")
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    grouped = any(pictures.groups)
    writer.writerow(["path", "label", "superclass", "split", *(["group"] if grouped else [])])
    for i, path in enumerate(pictures.paths):
        if i not in left_out and int(pictures.labels[i]) in learned:
            columns = (
                str(path.absolute()),
                pictures.class_of(i),
                pictures.parents[i],
                pictures.splits[i],
                *([pictures.groups[i]] if grouped else []),
            )
            writer.writerow(map(escape_formula, columns))
    return out.getvalue()


def _copies_to_keep(pictures: AuditedPictures, group: Sequence[int]) -> set[int]:
    """Return which of several copies stays: one in test, else in validation, else in training."""
    for split in ("test", "validation", "train", ""):
        members = [i for i in group if pictures.splits[i] == split]
        if members:
            agreed = len({int(pictures.labels[i]) for i in members}) == 1
            return {members[0]} if agreed else set()
    return set()
