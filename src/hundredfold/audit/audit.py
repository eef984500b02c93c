"""Audit a dataset before training: files, classes, duplicates, labels."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hundredfold.audit.duplicates import (
    NearDuplicate,
    descriptors,
    find_copies,
    find_near_duplicates,
)
from hundredfold.audit.features import MIN_PHOTOS, has_features, predict_by_features
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
BY_NETWORKS = (
    "Labels were checked by three small networks, each trained on two thirds of the pictures."
)
"""How labels are checked where pretrained features cannot be used."""
BY_FEATURES = (
    "Labels were checked by pretrained features and logistic regression, each time fitted to two "
    "thirds of the pictures."
)
"""How the labels of photos are checked."""


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
    """A sentence that says how labels were checked; empty if they were not."""

    @property
    def wrong(self) -> list[Finding]:
        """Findings that should be fixed before training."""
        return [finding for finding in self.findings if finding.wrong and finding.items]


def audit(pictures: AuditedPictures, *, near: bool = True, labels: bool = True) -> AuditResult:
    """Audit the pictures of a source.

    Args:
        pictures: as returned by `load_audited_pictures` or `from_dataset`.
        near: search for near duplicates.
        labels: search for labels that are likely wrong: those of photos by pretrained features if
            their weights are installed, others by three small networks that are trained for it.

    Raises:
        UserError: no picture can be read, or the pretrained weights are damaged.
    """
    if not len(pictures):
        raise UserError(f"{pictures.source} has no picture that can be read.")
    dataset = _as_dataset(pictures)
    config = fitted(quick(validation=0.0, balance="none"), len(pictures))
    config = replace(config, epochs=min(config.epochs, MAX_EPOCHS))
    copies = find_copies(pictures.digests)
    by_features = labels and has_features(pictures)
    fewest = MIN_PHOTOS if by_features else MIN_PICTURES
    no_labels = _why_no_labels(pictures, fewest) if labels else "not requested"
    no_near = _why_no_near(pictures) if near else "not requested"
    issues: list[LabelIssue] = []
    pairs: list[NearDuplicate] = []
    with torch.random.fork_rng([]):
        setup = make_setup(config, dataset, torch.device("cpu"))
        states: list[State] = []
        if not no_labels:
            probabilities, states = _predict(pictures, setup, by_features=by_features)
            issues = find_label_issues(probabilities, pictures.labels)
        if not no_near:
            pairs = _near_duplicates(setup, states or [first_state(setup)])
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
        "" if no_labels else BY_FEATURES if by_features else BY_NETWORKS,
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
        return f"that needs {fewest} pictures, not {len(pictures)}"
    return ""


def _why_no_near(pictures: AuditedPictures) -> str:
    """Return why near duplicates cannot be searched for; an empty string if they can."""
    if len(pictures) < 2:
        return "there is only one picture"
    if len(pictures) > MAX_PICTURES:
        return f"each picture is compared with every other, and there are over {MAX_PICTURES:,}"
    return ""


def _predict(
    pictures: AuditedPictures, setup: Setup, *, by_features: bool
) -> tuple[Tensor, list[State]]:
    """Return the probabilities (N, C) of each picture out of sample, and the networks trained."""
    if by_features:
        with counted("Computing features", len(pictures)) as advance:
            return predict_by_features(pictures, advance), []
    steps = count_audit_steps(len(pictures), setup.config)
    with counted("Checking labels", steps) as advance:
        return predict_out_of_sample(setup, advance)


def _near_duplicates(setup: Setup, states: Sequence[State]) -> list[NearDuplicate]:
    pictures = setup.train_split
    models = [state.model for state in states if isinstance(state.model, WhiteNet)]  # `quick` is
    with counted("Comparing", len(pictures)) as advance:
        plain, mirrored = descriptors(models, pictures.parts(), setup.info)
        return find_near_duplicates(pictures.store, plain, mirrored, advance)


def refuse_list(pictures: AuditedPictures) -> None:
    """Refuse to list pictures that a table cannot name.

    Raises:
        UserError: the pictures are not files, are in an archive, or have a file whose name is not
            one line of UTF-8 text.
    """
    if not pictures.paths:
        raise UserError(f"{pictures.source} is not a folder of files, so no list can be written.")
    if is_archive(Path(pictures.source)):
        raise UserError(
            f"{pictures.source} is an archive, and a table cannot name files in an archive. Unpack "
            "it, and audit the folder."
        )
    for path, name in zip(pictures.paths, pictures.names, strict=True):
        if NOT_TEXT.search(str(path)):
            raise UserError(
                f"The name of {name} contains a line break or is not valid UTF-8: rename the file."
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
