"""A model as a web page and a JSON endpoint, on this machine."""

from pathlib import Path
from typing import Any

from hundredfold.app.subject import Subject, make_subject
from hundredfold.errors import extra

__all__ = ["Subject", "make_app", "make_subject"]


def make_app(subject: Subject, folder: Path) -> Any:
    """Return the app: the page at /, the endpoint at /api/predict.

    Args:
        subject: what is shown.
        folder: takes the example pictures while the app runs.

    Returns:
        A FastAPI application, for uvicorn or any other ASGI server.

    Raises:
        UserError: the extra is not installed.
    """
    with extra("app", "The web page needs"):
        from hundredfold.app.endpoint import make_endpoint  # noqa: PLC0415  # an extra
        from hundredfold.app.page import mount_page  # noqa: PLC0415  # an extra
    return mount_page(make_endpoint(subject), subject, folder)
