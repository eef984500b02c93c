"""`hundredfold suggest`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hundredfold.cli.optional_data import say_if_unfinished
from hundredfold.evaluation.suggest import render_suggestions, suggest, suggestions_csv
from hundredfold.inference.predict import Predictor, find_pictures
from hundredfold.runs.bundled import find_run
from hundredfold.support.console import console, counted, escape, say
from hundredfold.support.files import expanded, make_folder, save_file
from hundredfold.support.text import plural


@dataclass(frozen=True)
class SuggestOptions:
    """Suggest which pictures to label next: those from which the model would learn most.

    These are pictures that the model is unsure of and that differ from each other. Label them, add
    them to your photos, and train again.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """The folder of pictures without labels; its subfolders are searched as well."""
    count: int = 50
    """Number of pictures to suggest."""
    out: Path = Path("suggestions")
    """Folder for suggestions.html and suggestions.csv."""
    device: str = "auto"
    """The device, as in train."""


def main(arguments: Sequence[str]) -> None:
    """Suggest pictures to label."""
    options = tyro.cli(SuggestOptions, prog="hundredfold suggest", args=arguments)
    run = find_run(options.run)
    predictor = Predictor.load(run, options.device)
    say_if_unfinished(run)
    pictures = find_pictures(expanded(options.folder), say)
    with counted("Classifying", len(pictures)) as advance:
        found = suggest(predictor, pictures, options.count, advance=advance)
    folder = make_folder(expanded(options.out))
    page = render_suggestions(found, run.path.resolve().name, len(pictures))
    save_file(folder / "suggestions.html", page)
    save_file(folder / "suggestions.csv", suggestions_csv(found))
    console.print(f"Suggested {len(found):,} of {plural(len(pictures), 'picture')}.")
    console.print(f"Page    {escape(str(folder / 'suggestions.html'))}")
    console.print(f"Table   {escape(str(folder / 'suggestions.csv'))}")
