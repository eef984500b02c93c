"""Audit a dataset before training: files, classes, duplicates, labels."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hundredfold.audit.duplicates import Pair, descriptors, exact_groups, near_pairs
from hundredfold.audit.findings import (
    Finding,
    class_findings,
    duplicate_findings,
    file_findings,
    label_findings,
)
from hundredfold.audit.labels import Suspect, count_audit_steps, out_of_sample, suspects
from hundredfold.audit.subject import Subject, load_subject, of_dataset
from hundredfold.data.archive import is_archive
from hundredfold.data.dataset import Dataset, Split
from hundredfold.models.whitenet import WhiteNet
from hundredfold.recipes import fitted, quick
from hundredfold.support.console import counted
from hundredfold.support.errors import UserError
from hundredfold.support.text import quoted
from hundredfold.training.setup import Setup, make_setup
from hundredfold.training.state import State, first_state

__all__ = [
    "Audit",
    "Finding",
    "Subject",
    "audit",
    "cleaned_list",
    "load_subject",
    "of_dataset",
    "refuse_list",
]

NO_TEXT = re.compile(r"[\n\ud800-\udfff]")
"""The end of a line, and what Python has in place of the bytes of a path that are not UTF-8."""
FEWEST_PICTURES = 100
"""From which on labels are judged: of fewer, a network learns nothing."""
MOST_EPOCHS = 20.0
"""Of few pictures, in judging labels."""
MOST_PICTURES = 100_000
"""Up to which near duplicates are looked for: each picture is compared with each."""


@dataclass(frozen=True)
class Audit:
    """What was found in a source."""

    subject: Subject
    findings: tuple[Finding, ...]
    """Of every kind that was looked for, with nothing in it where nothing was found."""
    exact: tuple[tuple[int, ...], ...]
    """Groups of pictures of the same content."""
    near: tuple[Pair, ...]
    """Near duplicates that are no copies."""
    suspects: tuple[Suspect, ...]
    """Pictures whose labels are likely wrong."""
    skipped: tuple[str, ...]
    """What was not looked for, and why."""

    @property
    def wrong(self) -> list[Finding]:
        """What should be mended before training."""
        return [finding for finding in self.findings if finding.wrong and finding.items]


def audit(subject: Subject, *, near: bool = True, labels: bool = True) -> Audit:
    """Audit a source.

    Args:
        subject: of `load_subject`, or of a dataset in memory.
        near: look for near duplicates.
        labels: look for likely label errors: trains three small networks.

    Raises:
        UserError: no picture can be read.
    """
    if not len(subject):
        raise UserError(f"{subject.source} has no picture that can be read.")
    dataset = _as_dataset(subject)
    config = fitted(quick(validation=0.0), len(subject))
    config = replace(config, epochs=min(config.epochs, MOST_EPOCHS))
    exact = exact_groups(subject.digests)
    no_labels = _too_few(subject) if labels else "not asked for"
    no_near = _too_many(subject) if near else "not asked for"
    found: list[Suspect] = []
    pairs: list[Pair] = []
    with torch.random.fork_rng([]):
        setup = make_setup(config, dataset, torch.device("cpu"))
        states: list[State] = []
        if not no_labels:
            with counted("Judging labels", count_audit_steps(len(subject), config)) as advance:
                probabilities, states = out_of_sample(setup, advance)
            found = suspects(probabilities, subject.labels)
        if not no_near:
            pairs = _near(setup, states or [first_state(setup)])
    digests = subject.digests
    pairs = [p for p in pairs if not digests[p.first] or digests[p.first] != digests[p.second]]
    findings = [
        *(file_findings(subject) if subject.paths else []),
        *class_findings(subject),
        *duplicate_findings(subject, exact, None if no_near else pairs),
        *([] if no_labels else label_findings(subject, found)),
    ]
    skipped = {"Labels that are likely wrong": no_labels, "Near duplicates": no_near}
    return Audit(
        subject,
        tuple(findings),
        tuple(tuple(group) for group in exact),
        tuple(pairs),
        tuple(found),
        tuple(f"{what} were not looked for: {why}." for what, why in skipped.items() if why),
    )


def _as_dataset(subject: Subject) -> Dataset:
    """Return all pictures as a training split."""
    everything = Split(subject.store, subject.labels, names=subject.names)
    return Dataset(subject.source, everything, everything[:0], subject.classes)


def _too_few(subject: Subject) -> str:
    """Return why labels cannot be judged, if so."""
    if len(subject.classes) < 2:
        return "there is only one class"
    if len(subject) < FEWEST_PICTURES:
        return f"that needs {FEWEST_PICTURES} pictures, not {len(subject)}"
    return ""


def _too_many(subject: Subject) -> str:
    """Return why near duplicates cannot be looked for, if so."""
    if len(subject) < 2:
        return "there is only one picture"
    if len(subject) > MOST_PICTURES:
        return f"each picture is compared with each, and there are more than {MOST_PICTURES:,}"
    return ""


def _near(setup: Setup, states: Sequence[State]) -> list[Pair]:
    pictures = setup.train_split
    models = [state.model for state in states if isinstance(state.model, WhiteNet)]  # `quick` is
    with counted("Comparing", len(pictures)) as advance:
        plain, mirrored = descriptors(models, pictures.parts(), setup.info)
        return near_pairs(pictures.store, plain, mirrored, advance)


def refuse_list(subject: Subject) -> None:
    """Refuse to list pictures that a table cannot name.

    Raises:
        UserError: the source is not of files, is an archive, or has a file whose name is no line of
            text.
    """
    if not subject.paths:
        raise UserError(f"{subject.source} is not of files, so there is no list to write.")
    if is_archive(Path(subject.source)):
        raise UserError(
            f"{subject.source} is an archive, and no table can name what is within: unpack it, and "
            "audit the folder."
        )
    for path, name in zip(subject.paths, subject.names, strict=True):
        if NO_TEXT.search(str(path)):
            raise UserError(f"{name} has a name that is no line of text (UTF-8): rename it first.")


def cleaned_list(found: Audit) -> str:
    """Return a table of the pictures without what is surely wrong, for `--data`.

    Left out are files that cannot be used, classes that cannot be learned, all but one of copies
    within a class (in training, those of test or validation pictures), and all copies in two
    classes of one split. Near duplicates and likely label errors stay: people have to judge them.

    Raises:
        UserError: as of `refuse_list`.
    """
    subject = found.subject
    refuse_list(subject)
    left_out = set()
    for group in found.exact:
        kept = _kept(subject, group)
        left_out |= set(group) - kept
    learned = {
        label
        for label, split in zip(subject.labels.tolist(), subject.splits, strict=True)
        if split in ("train", "")
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "label", "superclass", "split"])
    for i, path in enumerate(subject.paths):
        if i not in left_out and int(subject.labels[i]) in learned:
            row = (str(path.absolute()), subject.class_of(i), subject.parents[i], subject.splits[i])
            writer.writerow(map(quoted, row))
    return out.getvalue()


def _kept(subject: Subject, group: Sequence[int]) -> set[int]:
    """Return which of several copies stay: one of the test's, else of validation, else of train."""
    for split in ("test", "validation", "train", ""):
        members = [i for i in group if subject.splits[i] == split]
        if members:
            agreed = len({int(subject.labels[i]) for i in members}) == 1
            return {members[0]} if agreed else set()
    return set()
