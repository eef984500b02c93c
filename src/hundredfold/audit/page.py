"""Render what an audit found as an HTML page and as JSON."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from hundredfold.audit.audit import AuditResult
from hundredfold.audit.findings import Finding, count_by_split
from hundredfold.audit.pictures import AuditedPictures
from hundredfold.pictures.load import data_uri, load_picture
from hundredfold.support.errors import UserError
from hundredfold.support.html import render_page

MAX_GROUPS = 24
"""Most items of a finding that are shown with pictures; the JSON has all of them."""
MAX_LINES = 100
"""Most items of a finding without pictures that are listed."""
MAX_PICTURES = 4
"""Most pictures of an item that are shown."""
THUMBNAIL = 96
"""Side in pixels of a picture that is read from its file."""


class AuditPicture(NamedTuple):
    """A picture on the page."""

    source: str
    """The picture as a data URI."""
    name: str
    label: str


class FindingSection(NamedTuple):
    """A finding on the page."""

    finding: Finding
    groups: list[tuple[str, list[AuditPicture]]]
    """Text and pictures of each item; empty if the finding has no pictures."""


def render_audit(result: AuditResult) -> str:
    """Return the self-contained HTML page."""
    sections = [_section(result, finding) for finding in result.findings if finding.items]
    counts = count_by_split(result.pictures)
    return render_page(
        "hundredfold.audit",
        "page.html",
        pictures=result.pictures,
        method=result.method,
        skipped=result.skipped,
        counts=counts,
        largest=max(max(names.values(), default=1) for names in counts.values()),
        wrong=[section for section in sections if section.finding.wrong],
        minor=[section for section in sections if not section.finding.wrong],
        not_found=[finding for finding in result.findings if not finding.items],
        max_lines=MAX_LINES,
        max_groups=MAX_GROUPS,
    )


def _section(result: AuditResult, finding: Finding) -> FindingSection:
    groups = [
        (item.detail, [_picture(result.pictures, i) for i in item.pictures[:MAX_PICTURES]])
        for item in finding.items[:MAX_GROUPS]
        if item.pictures
    ]
    return FindingSection(finding, groups)


def _picture(pictures: AuditedPictures, index: int) -> AuditPicture:
    image = pictures.store[index]
    if pictures.paths:
        with suppress(UserError):  # if the file is gone, show what was read of it
            image = load_picture(pictures.paths[index], THUMBNAIL)
    return AuditPicture(data_uri(image), pictures.names[index], pictures.class_of(index))


def audit_json(result: AuditResult) -> str:
    """Return everything that was found, as JSON."""
    pictures = result.pictures

    def named(indices: Sequence[int]) -> list[str]:
        return [pictures.names[i] for i in indices]

    content = {
        "source": pictures.source,
        "pictures": len(pictures),
        "classes": count_by_split(pictures),
        "findings": {
            finding.key: {
                "title": finding.title,
                "wrong": finding.wrong,
                "items": [item.line for item in finding.items],
            }
            for finding in result.findings
        },
        "exact": [named(group) for group in result.copies],
        "near": [[*named(pair[:2]), round(pair.score, 4)] for pair in result.near],
        "labels": [
            {
                "picture": pictures.names[issue.picture],
                "label": pictures.classes[issue.given],
                "suggested": pictures.classes[issue.suggested],
                "confidence": round(issue.confidence, 4),
            }
            for issue in result.label_issues
        ],
        "method": result.method,
        "skipped": list(result.skipped),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
