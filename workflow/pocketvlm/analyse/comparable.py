"""Which numbers a device's state makes comparable: what a want shapes is withheld where it was not met.

What a run's `meta.json` says of its device's state becomes metrics of the run, NA with the reason: so tables
show it, and judging needs the records alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pocketvlm.analyse.metrics import Metric

UNMET = "unmet."
"""Prefix of the metrics that say that a want was not met: `unmet.governor`."""

CLEAN_POWER = "clean_power"
"""What every run wants without saying so: that the battery alone supplies the device."""

_POWER = ("power", "energy")
_CLOCKS = ("cpu_frequency",)
_SPEED = ("duration", "time_to_first_token", "tokens_per_second", "inter_token_latency", *_CLOCKS, *_POWER)
_SCREEN = ("jank_percent", "frames", "gpu_time_screen")
SHAPES: Mapping[str, tuple[str, ...]] = {
    "airplane_mode": _POWER,
    "automatic_brightness": _POWER,
    "brightness": _POWER,
    "screen_timeout_ms": _POWER,
    "stay_on": _POWER,
    "heads_up_notifications": (*_POWER, *_SCREEN),
    "animation_scale": (*_POWER, *_SCREEN),
    "fixed_performance": _SPEED,
    "governor": _SPEED,
    "max_frequency_percent": _SPEED,
    "min_frequency_percent": _SPEED,
    "charging": _POWER,
    "stop_apps": (*_POWER, "system_cpu", "memory_available_min"),
    CLEAN_POWER: _POWER,
}
"""Prefixes of the metrics that each want of an experiment's `state` shapes."""

_MOST = 40
_LONGEST = 300


def unmet(meta: Mapping[str, Any]) -> list[Metric]:
    """Return a metric for each want that was not met in a run, NA with the reason.

    Args:
        meta: the run's `meta.json`; what came from a device in it is not trusted, and what is no such record
            is left out.
    """
    state = meta.get("state")
    if not isinstance(state, dict):
        return []
    told = state.get("unmet")
    reasons = {name: why for name, why in told.items() if name in SHAPES} if isinstance(told, dict) else {}
    if state.get("power_not_clean"):
        reasons[CLEAN_POWER] = state["power_not_clean"]
    return [
        Metric("run", f"{UNMET}{name}", None, "1", "derived", None, _clause(why))
        for name, why in sorted(reasons.items())[:_MOST]
    ]


def withhold(rows: Iterable[dict[str, Any]], close: Callable[[list[dict[str, Any]], str], None]) -> None:
    """Withhold what unmet wants of a run shape.

    Args:
        rows: the metrics of one run.
        close: takes rows and why they are withheld.
    """
    of_run = list(rows)
    for row in of_run:
        if not row["metric"].startswith(UNMET):
            continue
        want = row["metric"].removeprefix(UNMET)
        shaped = [other for other in of_run if other["metric"].startswith(SHAPES.get(want, ()))]
        close(shaped, f"the device was not as wanted ({want}): {row['reason']}")


def _clause(why: object) -> str:
    """Return a reason as one clause of a gate: short, on one line, without the `; ` that parts clauses."""
    text = "".join(character if character.isprintable() else " " for character in str(why)[: 4 * _LONGEST])
    return re.sub(r"\s+", " ", text.replace(";", ",")).strip()[:_LONGEST] or "no reason is told"
