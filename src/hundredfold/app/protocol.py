"""What the addresses of all servers have in common: they read bodies, and answer errors as JSON."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from hundredfold.support.errors import UserError

MOST_BYTES = 20 * 2**20
"""Largest size of a picture file in bytes."""


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: the body is too large, or the connection was cut.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"A picture may have at most {MOST_BYTES >> 20} MiB.")
    except ClientDisconnect as error:
        raise HTTPException(400, "The connection was cut.") from error
    return bytes(body)


def answer_errors(app: FastAPI, missing: str, invalid: str) -> None:
    """Make the application answer every error with a sentence in JSON.

    Args:
        app: the application.
        missing: the sentence for an address that does not exist.
        invalid: the sentence for parameters of the wrong type.
    """

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        sentences = {
            404: missing,
            405: f"This address accepts only {(error.headers or {}).get('Allow')}.",
        }
        sentence = sentences.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(UserError)
    async def explain_refusal(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def refuse_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": invalid}, 422)

    @app.exception_handler(Exception)
    async def admit_fault(_: Request, error: Exception) -> JSONResponse:
        sentence = "The server failed to process the request. Its terminal shows the details."
        return JSONResponse({"error": sentence}, 500)
