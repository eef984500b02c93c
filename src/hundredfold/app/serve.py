"""Serve a model as a web page and a JSON endpoint."""

from typing import Any

from hundredfold.app.served_model import ServedModel
from hundredfold.support.errors import extra


def require_app() -> None:
    """Check that the extra is installed.

    Raises:
        UserError: it is not.
    """
    with extra("app", "The web page needs"):
        import hundredfold.app.endpoint  # noqa: F401, PLC0415


def make_app(served: ServedModel, host: str = "localhost") -> Any:
    """Return the app: the page at /, the endpoint at /api/predict and /api/explain.

    The app answers only requests that call it by an IP address, as localhost, or by the name of
    this machine or of `host`. It answers no request from a page of another server.

    Args:
        served: the model.
        host: the address that the server will listen at.

    Returns:
        An ASGI application, for uvicorn or any other ASGI server.

    Raises:
        UserError: the extra `app` is not installed.

    Examples:
        >>> served = make_served_model("strong", Predictor.load("strong"), None)
        >>> app = make_app(served)  # uvicorn.run(app) serves it
    """
    with extra("app", "The web page needs"):
        from hundredfold.app.endpoint import make_endpoint  # noqa: PLC0415  # an extra
        from hundredfold.app.guard import guarded, own_names  # noqa: PLC0415  # an extra
        from hundredfold.app.page import add_page  # noqa: PLC0415  # an extra
    app = make_endpoint(served)
    add_page(app, served)
    return guarded(app, own_names(host))
