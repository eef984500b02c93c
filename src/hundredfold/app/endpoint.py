"""The JSON endpoint: the bytes of a picture in, ranked classes out."""

from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hundredfold.app.protocol import answer_errors, read_body
from hundredfold.app.served_model import Explanation, ServedModel
from hundredfold.evaluation.explain import caption_similar
from hundredfold.figures.explanation import heat_picture
from hundredfold.pictures.load import as_tensor, data_uri
from hundredfold.support.errors import UserError

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
    404 for another path, 405 for another method, 413 if the body is larger than
    `protocol.MOST_BYTES`, 422 for a wrong `top`, and 500 if the program fails.
    """
    app = FastAPI(openapi_url=None)  # without a schema there are no documentation pages either
    answer_errors(
        app,
        "There is nothing at this address. Send pictures to /api/predict or /api/explain.",
        "top must be a whole number.",
    )

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
    return await read_body(request)


def _explain(served: ServedModel, picture: bytes, top: int) -> dict[str, Any]:
    """Return the answer of /api/explain."""
    found = served.explain(picture)
    heat_map = np.array(heat_picture(found.image, found.heat, HEAT_SIDE))
    answer = {"heat_map": data_uri(as_tensor(heat_map), exact=True)}
    return found.prediction.best(top).as_json() | answer | _similar(served, found)


def _similar(served: ServedModel, found: Explanation) -> dict[str, list[dict[str, str]]]:
    if not (served.dataset and found.similar):
        return {}
    try:
        pictures = caption_similar(found.similar, served.dataset.train, served.dataset.classes)
    except UserError:  # a file changed or is gone, and its path is nobody's business
        return {}
    return {
        "similar": [{"picture": data_uri(image), "caption": caption} for image, caption in pictures]
    }
