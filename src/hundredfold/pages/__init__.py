"""Pages that are whole in themselves: what they share, filled in from a template."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render_page(package: str, **values: Any) -> str:
    """Return the page.html of a package, which extends base.html, filled in; values are escaped."""
    loaders = [PackageLoader(package, ""), PackageLoader("hundredfold.pages", "")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(**values)
