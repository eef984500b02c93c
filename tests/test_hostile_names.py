"""Hostile names in an archive: escape codes, formulas, markup, line breaks."""

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from rich.text import Text

from hundredfold.cli.main import main
from hundredfold.data.table import list_table
from hundredfold.support.console import _Console, counted, escape
from hundredfold.support.text import cell, escape_formula, plural, printable, unescape_formula

TITLE, CLIPBOARD = "\x1b]0;owned\x07", "\x1b]52;c;b3duZWQ=\x07"
CLASSES = (
    f"cat{CLIPBOARD}", "dog\x9b2J", "=cmd|' calc'!A0", "owl\u202egnp", "emu\nerror forged",
    "[red]fox[bold]", "-ant", "a=bug",
)  # fmt: skip
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def archive() -> Path:
    """A zip archive of eight classes with hostile names, and one damaged file."""
    with zipfile.ZipFile("strange.zip", "w") as file:
        for i, name in enumerate(CLASSES):
            for number in range(6):
                buffer = io.BytesIO()
                Image.new("RGB", (32, 32), (30 * i, 40 * number, 0)).save(buffer, "PNG")
                file.writestr(f"{name}/{number}{TITLE}.png", buffer.getvalue())
        file.writestr(f"{CLASSES[0]}/bad{TITLE}.png", "no picture")
    return Path("strange.zip")


@pytest.fixture
def folder(archive: Path) -> Path:
    """The same pictures in a folder."""
    with zipfile.ZipFile(archive) as file:
        file.extractall("strange")
    return Path("strange")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the output; check that it has no control characters."""
    out, error = capsys.readouterr()
    assert not CONTROL.search(out + error), out + error
    assert "\nerror forged" not in out + error
    return out + error


def test_every_command_escapes_names_of_an_archive(
    archive: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(archive), "--no-labels", "--no-near"]) == 0
    assert r"cat\u001b]52;" in printed(capsys)
    page = Path("audit/audit.html").read_text()
    assert not CONTROL.search(page)
    assert "owl\\u202egnp" in page
    assert json.loads(Path("audit/audit.json").read_text())["classes"][""][CLASSES[1]] == 6
    assert main(["explore", str(archive)]) == 0
    printed(capsys)
    small = ["--widths", "8", "8", "--epochs", "1", "--device", "cpu", "--validation", "0.2"]
    for how in ("", "--log-json"):
        assert main(["train", "--data", str(archive), *small, *filter(None, [how])]) == 0
        assert "owned" in printed(capsys)
    run = min(Path("runs").iterdir())
    assert main(["report", str(run), "--data", str(archive)]) == 0
    printed(capsys)
    drawn = [path.read_text() for path in run.rglob("*.svg")] + [(run / "report.html").read_text()]
    assert not CONTROL.search("".join(drawn))
    assert "[red]fox[bold]" in drawn[-1]
    assert main(["evaluate", str(run), "--data", str(archive)]) == 0
    assert main(["predict", str(run), "--test", "0", "--data", str(archive)]) == 0
    printed(capsys)
    for form in ("table", "json", "csv"):
        assert main(["predict", str(run), str(folder), "--format", form, "--top", "8"]) == 2
        out = printed(capsys)
        assert out.count(r"\u001b]0;owned\u0007.png") >= 48
    rows = list(csv.reader(io.StringIO(out[: out.index("error: ")])))[1:]
    assert not [text for row in rows for text in row if text.startswith(("=", "-", "+"))]
    assert {unescape_formula(rows[0][column]) for column in range(1, 17, 2)} == set(
        map(printable, CLASSES)
    )


def test_a_cleaned_table_has_the_same_pictures_and_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(folder), "--fix", "clean.csv"]) == 2  # no line can name the emus
    assert "a line break or is not valid UTF-8" in capsys.readouterr().err
    (folder / CLASSES[4]).rename(folder / "emu")
    assert main(["audit", str(folder), "--no-labels", "--no-near", "--fix", "clean.csv"]) == 0
    with Path("clean.csv").open(newline="") as file:
        cells = [text for row in csv.reader(file) for text in row]
    assert not [text for text in cells if text.startswith(("=", "-", "+", "@"))]
    entries = list_table(Path("clean.csv")).entries
    assert {entry.label for entry in entries} == {*CLASSES[:4], "emu", *CLASSES[5:]}
    assert all(entry.path.is_file() and entry.path.parent.name == entry.label for entry in entries)
    assert len(entries) == 48


def test_errors_with_hostile_names_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"{TITLE}\nerror forged [bold]x[/bold]\u2028"
    for command in ("evaluate", "report", "predict", "compare", "runs", "audit", "export", "tune"):
        arguments = [name, name] if command == "compare" else [name]
        assert main([command, *arguments]) == 2
        error = printed(capsys)
        assert error.splitlines()[-1].startswith("error: ")
        assert "[bold]x[/bold]" in error


def test_the_console_escapes_control_characters_in_any_text() -> None:
    console = _Console(file=io.StringIO(), force_terminal=True, width=60)
    console.print(f"plain{TITLE}", Text(f"text{CLIPBOARD}"), f"[bold]{escape(TITLE)}[/]", ":bug:")
    out = re.sub(r"\x1b\[\d*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert not CONTROL.search(out)
    assert ":bug:" in out


def test_a_progress_bar_escapes_names(monkeypatch: pytest.MonkeyPatch) -> None:
    console = _Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("hundredfold.support.console.console", console)
    with counted(f"[red]x[/red]{TITLE}\n", 3) as advance:
        advance(3)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert r"[red]x[/red]\u001b]0;owned\u0007\n" in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 猫 👩‍🔬 می‌خواهم", "café 猫 👩‍🔬 می‌خواهم"),
        ("a\tb\r\n", r"a\tb\r\n"),
        ("\x00\x7f\x85\x9b", r"\u0000\u007f\u0085\u009b"),
        ("\u2066a\u2069\u200f\ufeff\U000e0041", r"\u2066a\u2069\u200f\ufeff\udb40\udc41"),
        ("\udcff", r"\udcff"),
    ],
)
def test_printable_escapes_invisible_and_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+cmd", "-x.jpg", "@SUM(A1)", "\t=x", "\r=x")),
        *((text, f"'{text}") for text in ("'=1+1", "''-x", "＝1+1")),  # noqa: RUF001
        *((text, text) for text in ("-1", "+2.5", "-", "=", "@", "a=b", "'", "'tis", "", "/-x")),
    ],
)
def test_quoted_formulas_are_text_and_can_be_unquoted(text: str, written: str) -> None:
    assert escape_formula(text) == written
    assert unescape_formula(written) == text
    assert cell(0.5) == 0.5
    assert cell(None) is None


def test_plural_has_a_singular() -> None:
    assert plural(1, "picture") == "1 picture"
    assert plural(0, "picture") == "0 pictures"
    assert plural(2500, "class") == "2,500 classes"
    assert plural(1.0, "epoch") == "1 epoch"
    assert plural(3.42, "epoch") == "3.42 epochs"
