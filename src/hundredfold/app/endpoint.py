"""The JSON endpoint: the bytes of a picture in, ranked classes out."""

from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hundredfold.app.served_model import Explanation, ServedModel
from hundredfold.evaluation.explain import caption_similar
from hundredfold.figures.explanation import heat_picture
from hundredfold.pictures.load import as_tensor, data_uri
from hundredfold.support.errors import UserError

MOST_BYTES = 20 * 2**20
"""Largest size of a picture file in bytes."""
HEAT_SIDE = 320
"""Side of the heat map in pixels."""


def make_endpoint(served: ServedModel) -> FastAPI:
    """Return a FastAPI application with POST /api/predict and POST /api/explain.

    The body of a request is the content of a picture file. The answer of /api/predict has `classes`
    and, if the model has a hierarchy, `superclasses`: lists of `name` and `probability`, the most
    probable first. The query's `top` sets their length (default 5). The answer of /api/explain also
    has `heat_map`, the address of a PNG ("data:image/png;base64,..."), and, if the training data
    was found, `similar`: a list of `picture` (the address of a PNG or JPEG) and `caption`.

    Every error is JSON with `error`, a sentence. The status is 400 if the body is not a picture,
    404 for another path, 405 for another method, 413 if the body is larger than MOST_BYTES, 422 for
    a wrong `top`, and 500 if the program fails.
    """
    app = FastAPI(openapi_url=None)  # without a schema there are no documentation pages either
    _answer_errors(app)

    @app.post("/api/predict")
    async def predict(request: Request, top: int = 5) -> JSONResponse:
        """Classify the picture in the body."""
        prediction = await run_in_threadpool(served.predict, await _picture(request, top))
        return JSONResponse(prediction.best(top).as_json())

    @app.post("/api/explain")
    async def explain(request: Request, top: int = 5) -> JSONResponse:
        """Classify the picture in the body, and give the reasons."""
        picture = await _picture(request, top)
        return JSONResponse(await run_in_threadpool(_explain, served, picture, top))

    return app


async def _picture(request: Request, top: int) -> bytes:
    """Return the body of a request for `top` classes.

    Raises:
        HTTPException: `top` is below 1, the body is too large, or the connection was cut.
    """
    if top < 1:
        raise HTTPException(422, f"top is {top}, but must be at least 1.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"A picture may have at most {MOST_BYTES >> 20} MiB.")
    except ClientDisconnect as error:
        raise HTTPException(400, "The connection was cut.") from error
    return bytes(body)


def _explain(served: ServedModel, picture: bytes, top: int) -> dict[str, Any]:
    """Return the answer of /api/explain."""
    found = served.explain(picture)
    heat_map = np.array(heat_picture(found.image, found.heat, HEAT_SIDE))
    answer = {"heat_map": data_uri(as_tensor(heat_map), exact=True)}
    return found.prediction.best(top).as_json() | answer | _similar(served, found)


def _similar(served: ServedModel, found: Explanation) -> dict[str, list[dict[str, str]]]:
    if not (served.dataset and found.similar):
        return {}
    pictures = caption_similar(found.similar, served.dataset.train, served.dataset.classes)
    return {
        "similar": [{"picture": data_uri(image), "caption": caption} for image, caption in pictures]
    }


def _answer_errors(app: FastAPI) -> None:
    """Make the application answer every error with a sentence in JSON."""

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            404: "There is nothing at this address. Send pictures to /api/predict or /api/explain.",
            405: f"This address accepts only {(error.headers or {}).get('Allow')}.",
        }
        sentence = sentences.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(UserError)
    async def explain_refusal(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def refuse_query(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "top must be a whole number."}, 422)

    @app.exception_handler(Exception)
    async def admit_fault(_: Request, error: Exception) -> JSONResponse:
        sentence = "The server failed to process the request. Its terminal shows the details."
        return JSONResponse({"error": sentence}, 500)
