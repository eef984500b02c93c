"""`hundredfold audit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.audit.audit import AuditResult, audit, cleaned_list, refuse_list, refuse_target
from hundredfold.audit.page import audit_json, render_audit
from hundredfold.audit.pictures import load_audited_pictures
from hundredfold.support.console import console, escape
from hundredfold.support.errors import CheckFailed
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.text import plural

MAX_EXAMPLE = 200
"""Most characters of an example: a thousand copies of a file have a thousand names."""


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
    """Audit data before training: files, classes, duplicates, labels. Your files are not changed.

    Args:
        data: The data, as --data of train.
        near: Search for near duplicates as well as for copies.
        labels: Search for labels that are likely wrong. Here and in the search for near duplicates,
            photos are compared by pretrained features. For other pictures, three small networks are
            trained.
        fix: File (.csv) for a table of the pictures that leaves out those that are certainly wrong.
            To train on this table, pass it to train as --data.
        strict: Exit with code 1 if something should be fixed before training.
        out: Folder for audit.html and audit.json.
    """
    pictures = load_audited_pictures(data)
    if fix:
        refuse_list(pictures)
        refuse_target(pictures, expanded(fix))
    folder = make_folder(expanded(out))
    result = audit(pictures, near=near, labels=labels)
    save_file(folder / "audit.html", render_audit(result))
    save_file(folder / "audit.json", audit_json(result))
    show_findings(result)
    for sentence in (result.method, *result.skipped):
        if sentence:
            console.print(escape(sentence))
    if fix:
        content = cleaned_list(result)
        save_file(expanded(fix), content)
        left_out = len(pictures) + len(pictures.unusable) - content.count("\n") + 1
        console.print(f"Table   {escape(fix)}, which leaves out {plural(left_out, 'picture')}")
    console.print(f"Page    {escape(str(folder / 'audit.html'))}")
    if strict and result.wrong:
        wrong = "; ".join(f"{f.title}: {len(f.items):,}" for f in result.wrong)
        raise CheckFailed(f"Fix these problems before training: {wrong}.")


def show_findings(result: AuditResult) -> None:
    """Print what was found, a line with an example for each kind."""
    pictures = result.pictures
    total = f"{plural(len(pictures), 'picture')} of {plural(len(pictures.classes), 'class')}"
    console.print(escape(f"{pictures.source}: {total}"))
    for finding in result.findings:
        if finding.items:
            example = finding.items[0].line
            if len(example) > MAX_EXAMPLE:
                example = example[:MAX_EXAMPLE] + " ..."
            title = f"{finding.title} (to fix)" if finding.wrong else finding.title
            line = f"{len(finding.items):7,}  {title}, for example {example}"
            console.print(escape(line), style="red" if finding.wrong else "")
