"""Tables that were written for a manuscript, shown on the page as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from pocketvlm.analyse.report.extras import link
from pocketvlm.errors import IntegrityError


@dataclass(frozen=True)
class Sheet:
    """A table written for a manuscript, as HTML, with links to it in every format."""

    name: str
    html: Markup
    files: tuple[tuple[str, str], ...]


def _markdown() -> MarkdownIt:
    """Return a reader of GitHub's tables that makes neither links nor pictures and takes no HTML."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    return reader.disable(
        ["link", "image", "autolink", "reference", "code", "fence", "html_block", "html_inline"]
    )


def sheet_html(text: str) -> Markup:
    """Return the HTML of a table in Markdown; whatever its cells hold stays text.

    Numbers are aligned by class instead of by style, heads have a scope, and the table scrolls in a box.
    """
    reader = _markdown()
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            right = "right" in str(token.attrs.pop("style", ""))
            if right:
                token.attrSet("class", "num")
            if token.type == "th_open":
                token.attrSet("scope", "col")
        elif token.type == "table_open":
            token.attrSet("class", "sheet")
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def read_sheet(path: Path, page: Path) -> Sheet:
    """Return a table of a manuscript (`.md`) for the page, with links to the formats beside it.

    Raises:
        IntegrityError: the file is not there, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"The table {path.name} cannot be read: {error}", where=str(path), do="Make it again"
        ) from None
    files = tuple(
        (suffix[1:], link(path.with_suffix(suffix), page))
        for suffix in (".csv", ".md", ".tex")
        if path.with_suffix(suffix).is_file()
    )
    return Sheet(path.stem, sheet_html(text), files)
