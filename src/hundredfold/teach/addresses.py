"""The addresses that the script of the teaching page calls."""

import io
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from hundredfold.app.protocol import answer_errors, read_body
from hundredfold.pictures.load import to_image
from hundredfold.teach.album import Album
from hundredfold.teach.teacher import Teacher

THUMBNAIL = 112
"""Side of a picture on the page in pixels."""


def make_addresses(teacher: Teacher) -> FastAPI:
    """Return a FastAPI application that changes an album, trains and classifies.

    POST /api/classes (`name`), /api/classes/rename (`label`, `name`), /api/classes/merge (`label`,
    `into`), /api/classes/delete (`label`), /api/pictures (`label`, `name`, `burst`; the body is a
    picture file), /api/pictures/delete (`label`, `picture`), /api/undo and /api/train do what they
    say and answer as GET /api/state does (`Teacher.state`). POST /api/predict answers as that of
    `app.endpoint`. GET /thumbnail (`label`, `picture`) is a JPEG.

    Every error is JSON with `error`, a sentence.
    """
    app = FastAPI(openapi_url=None)  # without a schema there are no documentation pages either
    answer_errors(app, "There is nothing at this address.", "A parameter is missing or wrong.")
    _add_changes(app, teacher)
    _add_answers(app, teacher)
    return app


def _add_changes(app: FastAPI, teacher: Teacher) -> None:
    """Add the addresses that change the album."""

    def changed(change: Callable[[Album], object]) -> dict[str, Any]:
        with teacher.changing() as album:
            change(album)
        return teacher.state()

    @app.post("/api/classes")
    def add_class(name: str) -> dict[str, Any]:
        return changed(lambda album: album.add_class(name))

    @app.post("/api/classes/rename")
    def rename_class(label: str, name: str) -> dict[str, Any]:
        return changed(lambda album: album.rename_class(label, name))

    @app.post("/api/classes/merge")
    def merge(label: str, into: str) -> dict[str, Any]:
        return changed(lambda album: album.merge(label, into))

    @app.post("/api/classes/delete")
    def delete_class(label: str) -> dict[str, Any]:
        return changed(lambda album: album.delete_class(label))

    @app.post("/api/pictures")
    async def add_picture(
        request: Request, label: str, name: str = "", burst: str = ""
    ) -> dict[str, Any]:
        content = await read_body(request)
        return await run_in_threadpool(
            changed, lambda album: album.add_picture(label, content, name, burst)
        )

    @app.post("/api/pictures/delete")
    def delete_picture(label: str, picture: str) -> dict[str, Any]:
        return changed(lambda album: album.delete_pictures(label, [picture]))

    @app.post("/api/undo")
    def undo() -> dict[str, Any]:
        return changed(Album.undo)


def _add_answers(app: FastAPI, teacher: Teacher) -> None:
    """Add the addresses that show the state and pictures, train and classify."""

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return teacher.state()

    @app.post("/api/train")
    def train() -> dict[str, Any]:
        teacher.begin_training()
        return teacher.state()

    @app.post("/api/predict")
    async def predict(request: Request) -> dict[str, Any]:
        content = await read_body(request)
        return (await run_in_threadpool(teacher.predict, content)).as_json()

    @app.get("/thumbnail")
    def thumbnail(label: str, picture: str) -> Response:
        image = to_image(teacher.picture(label, picture, THUMBNAIL))
        image.save(buffer := io.BytesIO(), "JPEG", quality=85)
        return Response(buffer.getvalue(), media_type="image/jpeg")
