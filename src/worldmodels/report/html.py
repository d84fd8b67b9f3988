"""Pages of HTML that need no other file, from the templates beside this module."""

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from worldmodels.report.table import score_text


def page(template: str, **content: Any) -> bytes:
    """Return a page, of a template in this folder and what it shows. The same content gives the same bytes."""
    loader = PackageLoader("worldmodels.report", "")
    pages = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)
    pages.filters |= {"score": score_text, "base64": lambda content: base64.b64encode(content).decode()}
    pages.filters["width"] = lambda png: int.from_bytes(png[16:20])
    return pages.get_template(template).render(content).encode()
