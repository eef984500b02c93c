"""Render self-contained HTML pages from Jinja templates."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hundredfold.support.text import printable


def render_page(package: str, template: str, **values: Any) -> str:
    """Return a page: a package's template, which extends base.html, with escaped values."""
    loaders = [PackageLoader(package, ""), PackageLoader("hundredfold.support", "")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, finalize=_visible
    )
    return environment.get_template(template).render(**values)


def _visible(value: Any) -> Any:
    """Return a text without invisible characters and without those that change text direction."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
