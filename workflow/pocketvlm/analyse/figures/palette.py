"""The colours and names of everything drawn: one phase, one colour, in the figures and in the report's CSS.

The phases are colours of Okabe and Ito (2008), which stay apart under the common colour-vision deficiencies:
text phases blue, image phases orange to red, what is neither grey. Lines have colours of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

PHASES = ("load", "text_prefill", "image_encode", "image_prefill", "decode", "other")

DRAWN = (*PHASES, "interaction")
"""What a timeline may be shaded by: the phases, and time that is none of them."""

PHASE_COLOURS = {
    "load": "#8a8f98",
    "text_prefill": "#56b4e9",
    "image_encode": "#e69f00",
    "image_prefill": "#d55e00",
    "decode": "#0072b2",
    "other": "#c9cdd3",
    "interaction": "#ffffff",
}

PHASE_LABELS = {
    "load": "load",
    "text_prefill": "text prefill",
    "image_encode": "image encode",
    "image_prefill": "image prefill",
    "decode": "decode",
    "other": "other",
    "interaction": "interaction, not counted",
    "run": "whole run",
}

INK = "#1b1f24"
"""Text, axes and main lines; `currentColor` in an SVG."""

WARN = "#b3261e"
"""Tags that must not be overlooked; the report's `--warn` in an SVG."""

GREEN = "#009e73"
PURPLE = "#c260a0"

COMPONENT_COLOURS = {
    "cpu": INK,
    "gpu": GREEN,
    "battery": PURPLE,
    "npu": "#8a6d00",
    "skin": "#7a86ff",
    "pmic": "#d1691f",
}
"""Lines of a component: of its utilisation and of its temperature."""

OTHER_COMPONENT = "#8a8f98"

MAIN_CLASSES = ("cpu", "gpu", "skin", "battery")
"""Temperature classes that are drawn first where a device has more than MOST_CLASSES."""

MOST_CLASSES = 4
"""More lines of temperature in one panel are no longer read."""


def shown_classes(classes: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which temperature classes are drawn, and which are left to the tables."""
    found = sorted(set(classes), key=lambda one: (*(one != main for main in MAIN_CLASSES), one))
    return tuple(found[:MOST_CLASSES]), tuple(found[MOST_CLASSES:])


GROSS, NET = PURPLE, GREEN
"""Energy with and without the idle baseline in it."""


def css_variables() -> str:
    """Return the phases' colours as declarations of CSS custom properties, one a line."""
    return "\n".join(f"--phase-{name.replace('_', '-')}: {colour};" for name, colour in PHASE_COLOURS.items())


def text_on(colour: str) -> str:
    """Return black or white, whichever has the higher contrast (WCAG 2.2) on a colour `#rrggbb`."""

    def linear(channel: int) -> float:
        c = channel / 255
        return c / 12.92 if c <= 0.04045 else float(((c + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
