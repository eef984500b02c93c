"""A model as a web page and a JSON endpoint, on this machine."""

from pathlib import Path
from typing import Any

from hundredfold.app.subject import Subject, make_subject
from hundredfold.support.errors import extra

__all__ = ["Subject", "make_app", "make_subject"]


def make_app(subject: Subject, folder: Path, host: str = "localhost") -> Any:
    """Return the app: the page at /, the endpoint at /api/predict.

    It answers only who calls it by an IP address, as localhost, or by the name of this machine or
    of `host`, and no page of another server.

    Args:
        subject: what is shown.
        folder: takes the example pictures while the app runs.
        host: where it is to listen.

    Returns:
        An ASGI application, for uvicorn or any other server of such.

    Raises:
        UserError: the extra is not installed.
    """
    with extra("app", "The web page needs"):
        from hundredfold.app.endpoint import make_endpoint  # noqa: PLC0415  # an extra
        from hundredfold.app.guard import guarded, own_names  # noqa: PLC0415  # an extra
        from hundredfold.app.page import mount_page  # noqa: PLC0415  # an extra
    return guarded(mount_page(make_endpoint(subject), subject, folder), own_names(host))
