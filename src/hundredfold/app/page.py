"""The web page: one template, one script, and the example pictures."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import partial
from importlib import resources

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from hundredfold.app.protocol import MOST_BYTES
from hundredfold.app.served_model import ServedModel
from hundredfold.inference.known import FOREIGN
from hundredfold.support.html import render_page
from hundredfold.support.text import plural

COMMON_SCRIPT = ("hundredfold.app", "common.js")
"""Package and file name of the script that all pages use."""
MOST_FILES = 100
"""Largest number of pictures to classify at once."""


def add_page(app: FastAPI, served: ServedModel) -> None:
    """Add the page at /, its scripts, and the examples at /examples/0.png and so on.

    Args:
        app: the application that has the JSON endpoint.
        served: the model.
    """
    examples = served.examples()
    content = render_page(
        "hundredfold.app",
        "page.html",
        name=served.name,
        about=_about(served),
        has_superclasses=served.has_superclasses,
        examples=[label for _, label in examples],
        most_bytes=MOST_BYTES,
        foreign=FOREIGN,
        most_files=MOST_FILES,
    )
    example_files = {str(number): file for number, (file, _) in enumerate(examples)}

    async def example(request: Request) -> Response:
        file = example_files.get(request.path_params["number"])
        if file is None:
            raise HTTPException(404)
        return Response(file, media_type="image/png")

    add_content(app, content, [COMMON_SCRIPT, ("hundredfold.app", "page.js")])
    app.add_route("/examples/{number}.png", example)


def add_content(app: FastAPI, content: str, scripts: Iterable[tuple[str, str]]) -> None:
    """Add a page at /, and scripts at / and their name.

    Args:
        app: the application.
        content: the page.
        scripts: package and file name of each script.
    """
    policy = {"Content-Security-Policy": page_policy(content)}

    async def page(_: Request) -> Response:
        return HTMLResponse(content, headers=policy)

    app.add_route("/", page)
    for package, name in scripts:
        script = (resources.files(package) / name).read_bytes()
        app.add_route(f"/{name}", partial(_script, script))


async def _script(content: bytes, _: Request) -> Response:
    return Response(content, media_type="text/javascript")


def page_policy(content: str) -> str:
    """Return the Content-Security-Policy of a page.

    The browser runs scripts of this server alone, and applies only the style sheets within the
    page, which it knows by their digests.
    """
    sheets = re.findall("<style>(.*?)</style>", content, re.DOTALL)
    digests = [b64encode(hashlib.sha256(sheet.encode()).digest()).decode() for sheet in sheets]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        f"style-src {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


def _about(served: ServedModel) -> str:
    info = served.predictor.info
    groups = ""
    if served.has_superclasses:
        groups = f" in {plural(len(info.superclasses), 'superclass')}"
    if served.predictor.known:
        return (
            f"This model knows {plural(len(info.classes), 'class')}{groups}. If a picture looks "
            "unlike its training pictures, it says so, but it does not notice every such picture."
        )
    return (
        f"This model knows {plural(len(info.classes), 'class')}{groups}. It answers with one of "
        "them, whatever a picture shows."
    )
