"""Put a figure's SVG into the page: ids of its own, nothing that could run or load."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from markupsafe import Markup

from pocketvlm.errors import IntegrityError

_FORBIDDEN = {"script", "foreignObject", "iframe", "image", "a", "animate", "set"}


def inline_svg(path: Path, prefix: str) -> Markup:
    """Return the file's SVG for a page that holds several: ids prefixed, its stand-alone style left out.

    Raises:
        IntegrityError: the file is no SVG, or has a script, an event handler or a reference out of itself.
    """
    text = path.read_text(encoding="utf-8")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise IntegrityError(
            f"{path.name} is not an SVG: {error}", where=str(path), do="Draw it again"
        ) from None
    for element in root.iter():
        name = str(element.tag).rpartition("}")[2]
        handlers = [key for key in element.attrib if key.rpartition("}")[2].lower().startswith("on")]
        links = [value for key, value in element.attrib.items() if key.rpartition("}")[2] == "href"]
        outward = [link for link in links if not link.startswith("#")]
        styles = " ".join(element.attrib.values())
        if name in _FORBIDDEN or handlers or outward or re.search(r"url\(\s*['\"]?(?!#)[^)]", styles):
            raise IntegrityError(
                f"{path.name} holds a <{name}> that may run or load something",
                where=str(path),
                do="Draw it again",
            )
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    text = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = text.replace("<title>", f'<title id="{prefix}-title">', 1)
    text = text.replace('role="img"', f'role="img" aria-labelledby="{prefix}-title"', 1)
    return Markup(re.sub(r"\n\s*", "\n", text))
