"""Pages that are whole in themselves: what they share, filled in from a template."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hundredfold.support.text import printable


def render_page(package: str, **values: Any) -> str:
    """Return the page.html of a package, which extends base.html, filled in; values are escaped."""
    loaders = [PackageLoader(package, ""), PackageLoader("hundredfold.support", "")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, finalize=_plain
    )
    return environment.get_template("page.html").render(**values)


def _plain(value: Any) -> Any:
    """Return a value without characters that nobody sees, or that turn what is around them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
