"""The JSON endpoint: a picture's bytes in, ranked classes out."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from hundredfold.app.subject import Subject
from hundredfold.support.errors import UserError

MOST_BYTES = 20 * 2**20
"""Of a picture that is sent."""
OTHER_METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]


def make_endpoint(subject: Subject) -> FastAPI:
    """Return a FastAPI application with the one route, POST /api/predict.

    The body is a picture as it is in its file. The answer has `classes` and, where the model has a
    hierarchy, `superclasses`: lists of `name` and `probability`, the most probable first, as many
    as the query's `top` says (5 where it does not). What cannot be answered has `error`: status 400
    where the body is no picture, 405 for another method, 404 for another path below /api, 413 where
    the body is larger than MOST_BYTES, 422 for another `top`, 500 where the program is at fault.
    """
    app = FastAPI(title=f"hundredfold: {subject.name}", docs_url=None, redoc_url=None)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return _refused(422, "top must be a whole number.")

    @app.post("/api/predict")
    async def predict(request: Request, top: int = 5) -> JSONResponse:
        """Classify the picture that the body is."""
        if top < 1:
            return _refused(422, f"top is {top}, but must be at least 1.")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    return _refused(413, f"A picture may have at most {MOST_BYTES >> 20} MiB.")
        except ClientDisconnect:
            return _refused(400, "The connection was cut.")
        try:
            prediction = await run_in_threadpool(subject.predict, bytes(body))
        except UserError as error:
            return _refused(400, str(error))
        return JSONResponse(prediction.best(top).as_json())

    @app.api_route("/api/predict", methods=OTHER_METHODS)
    async def refuse_method() -> JSONResponse:
        return _refused(405, "Send a picture's bytes by POST.", {"Allow": "POST"})

    @app.api_route("/api/{path:path}", methods=["POST", *OTHER_METHODS])
    async def refuse_path(path: str) -> JSONResponse:
        return _refused(404, "There is only POST /api/predict.")

    @app.exception_handler(Exception)
    async def admit(_: Request, error: Exception) -> JSONResponse:
        return _refused(500, "This program is at fault: its terminal says more.")

    return app


def _refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": why}, status, headers)
