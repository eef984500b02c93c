"""Serve the page on which a person teaches a model."""

from typing import Any

from hundredfold.inference.known import FOREIGN
from hundredfold.support.errors import extra
from hundredfold.support.html import render_page
from hundredfold.teach.teacher import Teacher


def make_teach_app(teacher: Teacher, host: str = "localhost") -> Any:
    """Return the app: the page at /, its scripts, and the addresses that these call.

    The app answers only requests that `app.serve.make_app` would answer.

    Args:
        teacher: the pictures and the model.
        host: the address that the server will listen at.

    Returns:
        An ASGI application, for uvicorn or any other ASGI server.

    Raises:
        UserError: the extra `app` is not installed.
    """
    with extra("app", "The web page needs"):
        from hundredfold.app.guard import guarded, own_names  # noqa: PLC0415  # an extra
        from hundredfold.app.page import COMMON_SCRIPT, add_content  # noqa: PLC0415  # an extra
        from hundredfold.app.protocol import MOST_BYTES  # noqa: PLC0415  # an extra
        from hundredfold.teach.addresses import make_addresses  # noqa: PLC0415  # an extra
    app = make_addresses(teacher)
    values = {"most_bytes": MOST_BYTES, "foreign": FOREIGN}
    content = render_page("hundredfold.teach", "teach.html", **values)
    own = [("hundredfold.teach", name) for name in ("live.js", "teach.js")]
    add_content(app, content, [COMMON_SCRIPT, *own])
    return guarded(app, own_names(host))
