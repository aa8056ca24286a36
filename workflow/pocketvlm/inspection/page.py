"""`profile.html`: a profile as one page to read, which loads nothing, sends nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pocketvlm.analyse import numbers, pages
from pocketvlm.provenance import atomic_file

# Longer text of a device is cut; nothing that it should say is longer.
_TEXT = 600
# Sensors of which there is one for each core and state or each clock: shown apart, not to bury the others.
_MANY = ("cpu_time", "time_in_state")


def render(profile: Mapping[str, Any], *, templates: Path, destination: Path) -> None:
    """Write the page of a profile.

    Args:
        profile: the content of profile.json.
        templates: the folder `workflow/report`: `profile.html.j2` and `css/`, the report's.
        destination: the page.
    """
    environment = pages.environment(templates, _shown)
    style = "\n".join(path.read_text(encoding="utf-8") for path in sorted((templates / "css").glob("*.css")))
    few = [sensor for sensor in profile["sensors"] if not _one_of_many(sensor)]
    text = environment.get_template("profile.html.j2").render(
        **profile,
        few=few,
        many=[sensor for sensor in profile["sensors"] if _one_of_many(sensor)],
        sample=sample,
        rate=rate,
        unit=unit,
        amperes=amperes,
        style=Markup(style),
    )
    with atomic_file(destination, "wb") as stream:
        stream.write(text.encode("utf-8", "replace"))


def _one_of_many(sensor: Mapping[str, Any]) -> bool:
    total = str(sensor["component"]).startswith("cpu.")
    return sensor["quantity"] in _MANY and not total


def _shown(value: Any) -> Any:
    """Return untrusted text with its control characters made visible and cut; anything else as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        text, cut = numbers.visible(value, _TEXT)
        return f"{text}…" if cut else text
    return "NA" if value is None else value


def sample(sensor: Mapping[str, Any]) -> str:
    """Return a sensor's sample with its unit: bytes, clocks and charges in what a person reads."""
    value, unit = sensor["sample"], sensor["unit"]
    if value is None:
        return "could not be read"
    if isinstance(value, str):
        return value
    if unit == "B":
        return numbers.size(int(value))
    factor, shown = {"Hz": (1e-6, "MHz"), "degC": (1, "°C"), "1": (1, "")}.get(unit, (1, unit))
    return f"{numbers.number(value * factor)} {shown}".rstrip()


def rate(sensor: Mapping[str, Any]) -> str:
    """Return how often a second a sensor's value changed while the device was left alone."""
    if sensor["reads"] == sensor["unreadable"]:
        return "not read"
    return numbers.number(sensor["changes_per_s"]) if sensor["changes"] else "never"


def unit(sensor: Mapping[str, Any]) -> str:
    """Return what one unit of what the file says is."""
    if sensor["scale"] is None:
        return "text"
    name = "" if sensor["unit"] == "1" else f" {sensor['unit']}"
    return f"{sensor['scale']:g}{name}".replace("-", "\u2212")


def amperes(scale: float) -> str:
    """Return ampere a unit as text."""
    for factor, name in ((1e-6, "1 µA"), (1e-3, "1 mA")):
        if abs(abs(scale) - factor) < 1e-3 * factor:
            return f"{'' if scale > 0 else chr(0x2212)}{name}"
    return f"{scale:g} A"
