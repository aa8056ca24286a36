"""How pages are made of templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from pocketvlm.analyse import numbers


def environment(templates: Path, shown: Callable[[Any], Any]) -> jinja2.Environment:
    """Return what renders the templates of a folder: everything escaped, an unknown name an error.

    Args:
        templates: the folder `workflow/report`.
        shown: what a page prints of each value; text from outside must not hide a character in it.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    for name in ("size", "slug", "number"):
        made.filters[name] = getattr(numbers, name)
    return made
