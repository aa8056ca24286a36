"""How numbers and untrusted text are written on the page."""

from __future__ import annotations

import math
import re
import unicodedata

NARROW_SPACE = "\u202f"


def decimals(value: float, significant: int) -> int:
    """Return how many decimals show a value with that many significant digits, never more than nine."""
    if value == 0 or not math.isfinite(value):
        return 0
    # Rounded first: 99.96 with three digits is 100, not 100.0.
    rounded = abs(float(f"{value:.{significant - 1}e}"))
    return min(9, max(0, significant - 1 - math.floor(math.log10(rounded))))


def grouped(value: float, places: int) -> str:
    """Return a number with a narrow space between thousands and a true minus sign."""
    text = f"{value:,.{places}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace(",", NARROW_SPACE).replace("-", "\u2212")


def number(value: float, significant: int = 3) -> str:
    """Return a value with at least three significant digits; whole digits are never rounded away."""
    return grouped(value, decimals(value, significant))


def interval_decimals(median: float, low: float, high: float) -> int:
    """Return the decimals that suit a median and its interval: one more if that is within a percent."""
    if all(float(value).is_integer() for value in (median, low, high)):
        return 0
    narrow = median != 0 and abs(high - low) < 0.01 * abs(median)
    return decimals(median or max(low, high, key=abs), 4 if narrow else 3)


def interval(median: float, low: float, high: float, places: int | None = None) -> tuple[str, str, str]:
    """Return a median and its interval as text with equal decimals: `places`, or those that suit them."""
    chosen = interval_decimals(median, low, high) if places is None else places
    return grouped(median, chosen), grouped(low, chosen), grouped(high, chosen)


def size(count: int) -> str:
    """Return bytes as a short size in binary units."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{number(value)} {unit}"


def slug(*parts: object) -> str:
    """Return parts joined to an id that needs no escaping in HTML, CSS or a URL."""
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", str(part)) for part in parts)


def visible(text: str, limit: int) -> tuple[str, int]:
    """Return untrusted text with its control characters made visible, cut at `limit`, and how many were cut.

    Line ends and tabs stay. Characters that are invisible, that steer the direction of the text, or that no
    UTF-8 can hold are written as their code point. This is not escaping: the template does that.
    """
    kept = text[:limit].replace("\r\n", "\n")
    shown = "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
        else f"⟨U+{ord(char):04X}⟩"
        for char in kept
    )
    return shown, max(0, len(text) - limit)
