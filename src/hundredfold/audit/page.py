"""The audit's page and its JSON, from what was found."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from hundredfold.audit.audit import Audit
from hundredfold.audit.findings import Finding, class_counts
from hundredfold.audit.subject import Subject
from hundredfold.pictures.prepare import data_address, load_picture
from hundredfold.support.errors import UserError
from hundredfold.support.html import render_page

SHOWN = 24
"""Groups of pictures of a finding that are shown; the rest are in the JSON."""
LISTED = 100
"""Lines of a finding that has no pictures."""
MOST_IN_GROUP = 4
THUMBNAIL = 96
"""Side in pixels of what is shown of a file."""


class Shot(NamedTuple):
    """A picture on the page."""

    source: str
    name: str
    label: str


class Section(NamedTuple):
    """A finding on the page."""

    finding: Finding
    groups: list[tuple[str, list[Shot]]]
    """Words under each group, and its pictures."""


def render(found: Audit) -> str:
    """Return the page, whole in itself."""
    sections = [_section(found, finding) for finding in found.findings if finding.items]
    counts = class_counts(found.subject)
    return render_page(
        "hundredfold.audit",
        "page.html",
        subject=found.subject,
        total=len(found.subject),
        skipped=found.skipped,
        counts=counts,
        most=max(max(names.values(), default=1) for names in counts.values()),
        wrong=[section for section in sections if section.finding.wrong],
        odd=[section for section in sections if not section.finding.wrong],
        clean=[finding for finding in found.findings if not finding.items],
        listed=LISTED,
        shown=SHOWN,
    )


def _section(found: Audit, finding: Finding) -> Section:
    suggested = {s.picture: found.subject.classes[s.suggested] for s in found.suspects}
    groups = []
    for item, pictures in list(zip(finding.items, finding.pictures, strict=False))[:SHOWN]:
        shots = [_shot(found.subject, i) for i in pictures[:MOST_IN_GROUP]]
        if finding.key == "labels":
            text = f"rather {suggested[pictures[0]]}?"
        elif len(pictures) == 1:
            text = item.split(": ", 1)[1]
        else:
            text = item.rpartition("(")[2].rstrip(")")
        groups.append((text, shots))
    return Section(finding, groups)


def _shot(subject: Subject, picture: int) -> Shot:
    image = subject.store[picture]
    if subject.paths:
        with suppress(UserError):  # gone since: what was read of it will do
            image = load_picture(subject.paths[picture], THUMBNAIL)
    return Shot(data_address(image), subject.names[picture], subject.class_of(picture))


def to_json(found: Audit) -> str:
    """Return all that was found, as JSON."""
    subject = found.subject

    def named(pictures: Sequence[int]) -> list[str]:
        return [subject.names[i] for i in pictures]

    content = {
        "source": subject.source,
        "pictures": len(subject),
        "classes": class_counts(subject),
        "findings": {
            finding.key: {"title": finding.title, "wrong": finding.wrong, "items": finding.items}
            for finding in found.findings
        },
        "exact": [named(group) for group in found.exact],
        "near": [[*named(pair[:2]), round(pair.score, 4)] for pair in found.near],
        "labels": [
            {
                "picture": subject.names[suspect.picture],
                "label": subject.classes[suspect.given],
                "suggested": subject.classes[suspect.suggested],
                "confidence": round(suspect.confidence, 4),
            }
            for suspect in found.suspects
        ],
        "skipped": list(found.skipped),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
