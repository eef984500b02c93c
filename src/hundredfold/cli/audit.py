"""`hundredfold audit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.table import Table

from hundredfold.audit.audit import Audit, audit, cleaned_list, refuse_list
from hundredfold.audit.page import render, to_json
from hundredfold.audit.subject import load_subject
from hundredfold.support.console import console, escape
from hundredfold.support.errors import CheckFailed
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.text import plural

LONGEST = 200
"""Letters of an example: a thousand copies of a file have a thousand names."""


def main(arguments: Sequence[str]) -> None:
    """Audit data before training."""
    tyro.cli(audit_data, prog="hundredfold audit", args=arguments)


def audit_data(
    data: Annotated[str, tyro.conf.Positional] = "auto",
    /,
    *,
    near: bool = True,
    labels: bool = True,
    fix: str = "",
    strict: bool = False,
    out: Path = Path("audit"),
) -> None:
    """Audit data before training: files, classes, duplicates, labels. Changes no file of yours.

    Args:
        data: Which data, as --data of train.
        near: Look for near duplicates too, not only for copies.
        labels: Look for labels that are likely wrong: trains three small networks.
        fix: Table to write of the pictures without what is surely wrong, to train on by --data.
        strict: Exit with code 1 where something must be mended.
        out: Folder for the page and its JSON.
    """
    subject = load_subject(data)
    if fix:
        refuse_list(subject)
    folder = make_folder(expanded(out))
    found = audit(subject, near=near, labels=labels)
    save_file(folder / "audit.html", render(found))
    save_file(folder / "audit.json", to_json(found))
    console.print(findings_table(found))
    for sentence in found.skipped:
        console.print(escape(sentence))
    if fix:
        content = cleaned_list(found)
        save_file(expanded(fix), content)
        left = len(subject) + len(subject.bad) - content.count("\n") + 1
        console.print(f"Cleaned {escape(fix)}, without {left:,} of the pictures")
    console.print(f"Page    {escape(str(folder / 'audit.html'))}")
    if strict and found.wrong:
        wrong = "; ".join(f"{f.title}: {len(f.items):,}" for f in found.wrong)
        raise CheckFailed(f"To mend: {wrong}.")


def findings_table(found: Audit) -> Table:
    """Return what was found, a row a kind."""
    subject = found.subject
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("found", justify="right")
    table.add_column(escape(subject.source), overflow="fold")
    table.add_column("such as", overflow="fold")
    table.add_row(f"{len(subject):,}", f"pictures of {plural(len(subject.classes), 'class')}", "")
    for finding in found.findings:
        if finding.items:
            style = "red" if finding.wrong else ""
            number, example = f"{len(finding.items):,}", finding.items[0]
            example = example if len(example) <= LONGEST else example[:LONGEST] + " ..."
            table.add_row(number, finding.title, escape(example), style=style)
    return table
