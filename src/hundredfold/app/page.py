"""The web page, by Gradio: pictures in; ranked classes, heat map and likenesses out."""

from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from fastapi import FastAPI
from PIL import Image

from hundredfold.app.endpoint import MOST_BYTES
from hundredfold.app.subject import Explained, Subject
from hundredfold.evaluation.explain import caption_similar
from hundredfold.figures.explanation import heat_picture
from hundredfold.inference.predict import Score
from hundredfold.metrics.scores import format_probability
from hundredfold.pictures.prepare import to_image
from hundredfold.support.errors import UserError
from hundredfold.support.text import plural

SHOWN = 5
"""Classes."""
SIDE = 320
"""Pixels of the heat map."""
MOST_FILES = 100
"""At once."""
KEPT = (600, 3600)
"""Seconds between two looks for files that were uploaded, and how old they may become."""
C = TypeVar("C", gr.Image, gr.File)
STYLE = """
.pixels img {image-rendering: pixelated}
.picture img {min-height: 15rem; object-fit: contain}
.pixels .grid-wrap {max-height: none; min-height: 0; padding-top: 2.2rem}
.pixels .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) !important
}
"""


def mount_page(app: FastAPI, subject: Subject, folder: Path) -> Any:
    """Return the application with the page at /.

    Args:
        app: what answers the other addresses.
        subject: what is shown.
        folder: takes the example pictures while the app runs.
    """
    with gr.Blocks(
        title=f"hundredfold: {subject.name}", analytics_enabled=False, delete_cache=KEPT
    ) as blocks:
        gr.Markdown(f"# {_markdown(subject.name)}\n{_markdown(_about(subject))}")
        with gr.Tab("A picture"):
            _one_picture(subject, folder)
        with gr.Tab("Several"):
            _several_pictures(subject)
    blocks.queue(default_concurrency_limit=4, max_size=100)
    blocks.has_launched = True  # else Gradio takes any path that a request names, not only uploads
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        css=STYLE,
        footer_links=[],
        run_history=False,
        max_file_size=MOST_BYTES,
        show_error=False,  # those that are not ours may name paths of this machine
    )


def _about(subject: Subject) -> str:
    info = subject.predictor.info
    above = len(info.superclasses)
    coarse = f" in {plural(above, 'superclass')}" if above else ""
    return (
        f"Knows {plural(len(info.classes), 'class')}{coarse}, and no others: of whatever it is "
        "shown, it names one of them."
    )


def _one_picture(subject: Subject, folder: Path) -> None:
    """Lay out the page for one picture: input, classes, map and likenesses, examples."""
    with gr.Row():
        with gr.Column():
            picture = _picture_input()
        with gr.Column():
            note = gr.Markdown(visible=False)  # gr.HTML needs eval, which is forbidden
            classes = gr.Label(label="Classes", num_top_classes=SHOWN)
            superclasses = gr.Label(
                label="Superclasses", num_top_classes=SHOWN, visible=_has_superclasses(subject)
            )
    with gr.Row(visible=False) as why:
        heat = gr.Image(
            label="What speaks for the first class (orange), and against it (blue)",
            interactive=False,
            buttons=["download"],
        )
        like = gr.Gallery(
            label="Training pictures that the model finds most like it",
            height="auto",
            buttons=[],
            elem_classes="pixels",
            visible=subject.dataset is not None,
        )

    def show(path: str | None) -> list[Any]:
        nothing = [gr.Markdown(visible=False), None, None, gr.Row(visible=False), None, None]
        if path is None:
            return nothing
        try:
            found = subject.explain(Path(path).read_bytes())
        except UserError as error:
            return [gr.Markdown(_markdown(str(error)), visible=True), *nothing[1:]]
        return [
            gr.Markdown(visible=False),
            _bars(found.prediction.classes),
            _bars(found.prediction.superclasses),
            gr.Row(visible=True),
            heat_picture(found.image, found.heat, SIDE),
            _likenesses(subject, found),
        ]

    outputs = [note, classes, superclasses, why, heat, like]
    picture.change(show, picture, outputs, api_visibility="private")
    _examples(subject, picture, folder)


def _examples(subject: Subject, picture: gr.Image, folder: Path) -> None:
    """Lay out test pictures, which go where `picture` is when they are chosen."""
    examples = _write_examples(subject, folder)
    if not examples:
        return
    gallery = gr.Gallery(
        examples,
        label="Pictures of the test set, to try",
        height="auto",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_classes="pixels",
    )

    def choose(chosen: gr.SelectData) -> str:
        return examples[int(chosen.index)][0]

    gallery.select(choose, None, picture, api_visibility="private")


def _picture_input() -> gr.Image:
    """Return Gradio's picture input, but for one thing: the file comes as it was uploaded.

    So that its transparency, orientation and damage are treated as everywhere else. (A class of our
    own would make Gradio write a file beside this one.)
    """
    picture = gr.Image(
        type="filepath",
        elem_classes="picture",
        label="Drop, paste or shoot a picture",
        sources=["upload", "clipboard", "webcam"],
    )
    picture.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return _only_uploads(picture)


def _only_uploads(component: C) -> C:
    """Return a component that fetches nothing from an address that a request names."""
    take = component.async_move_resource_to_block_cache

    async def checked(path: str | Path | None) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise gr.Error("Upload the picture itself.")
        return await take(path)

    component.async_move_resource_to_block_cache = checked  # type: ignore[method-assign, assignment]
    return component


def _several_pictures(subject: Subject) -> None:
    """Lay out the page for several pictures: a table, a row each."""
    files = _only_uploads(gr.File(label=f"Up to {MOST_FILES} pictures", file_count="multiple"))
    coarse = ["superclass", "its probability"] if _has_superclasses(subject) else []
    heads = ["picture", "class", "probability", *coarse, "note"]
    table = gr.Dataframe(headers=heads, interactive=False)

    def show(paths: list[str] | None) -> list[list[str]]:
        rows = []
        for path in (paths or [])[:MOST_FILES]:
            try:
                found = subject.predict(Path(path).read_bytes())
            except UserError as error:
                rows.append([Path(path).name, *[""] * (len(heads) - 2), str(error)])
                continue
            best = [found.classes[0], *found.superclasses[:1]]
            cells = [cell for s in best for cell in (s.name, format_probability(s.probability))]
            rows.append([Path(path).name, *cells, ""])
        if paths and len(paths) > MOST_FILES:
            rows.append([f"{len(paths) - MOST_FILES} more", *[""] * (len(heads) - 2), "left out"])
        return rows

    files.change(show, files, table, api_visibility="private")


def _write_examples(subject: Subject, folder: Path) -> list[tuple[str, str]]:
    """Write the example pictures; return their paths and classes."""
    examples = []
    for number, (image, label) in enumerate(subject.examples()):
        path = folder / f"{number}.png"
        to_image(image).save(path)
        examples.append((str(path), label))
    return examples


def _likenesses(subject: Subject, found: Explained) -> list[tuple[Image.Image, str]]:
    """Return the training pictures like a picture, with captions."""
    if not (subject.dataset and found.like):
        return []
    like = caption_similar(found.like, subject.dataset.train, subject.dataset.classes)
    return [(to_image(image), caption) for image, caption in like]


def _bars(scores: tuple[Score, ...]) -> dict[str, float] | None:
    return {score.name: score.probability for score in scores} or None


def _has_superclasses(subject: Subject) -> bool:
    info = subject.predictor.info
    return bool(info.superclasses) and info.superclasses != info.classes


def _markdown(text: str) -> str:
    """Return text as Markdown that says just this."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-.!|$~" else c for c in text)
