"""Whether a sensor's values can be what they say: by their range, their steps, and their neighbours.

A kernel that answers in another unit than before, a gauge that says -1 or 2147483647 for "no value", and a
zone that is not powered all look like numbers. What cannot be is left out with the reason; it stays in the
samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pocketvlm.analyse.raw import Floats

RANGES: Mapping[str, tuple[float, float]] = {
    # Parts of a phone are specified from -40 to 85 degC and their silicon to 125 degC (JEDEC JESD22-A104); at
    # 150 degC no package survives.
    "temperature": (-40.0, 150.0),
    # One lithium cell is cut off at 2 V or above; packs of up to four in series (a laptop's) end below 20 V.
    "voltage": (2.0, 20.0),
    # Charging at 240 W, the most that USB PD 3.1 knows, is 20 A at 12 V; no phone draws a fifth of it.
    "current": (-20.0, 20.0),
    "gpu_busy": (0.0, 100.0),
    "npu_busy": (0.0, 100.0),
    # 0 is a clock that is switched off. No core has reached 10 GHz.
    "cpu_frequency": (0.0, 10e9),
    "gpu_frequency": (0.0, 10e9),
    "memory": (0.0, float(1 << 50)),
    "workload_rss": (0.0, float(1 << 50)),
}
"""Least and greatest value of a quantity in the unit of `docs/formats.md`."""

# Units differ by powers of 1000. Values that change so much from one reading to the next, and stay there,
# have changed their unit: no zone cools from 30 to 0.03 degC. One reading may: a current between two bursts.
_STEP = 300.0
_STAYS = 10.0
_STEPPED = ("temperature", "voltage", "current")
# A zone so far from the median of all zones, in either direction, is in another unit or not powered.
_APART = 100.0


def implausible(quantity: str, values: Floats, unit: str) -> str:
    """Return why the values of a sensor over a run cannot be true; empty when they can.

    Args:
        quantity: what is measured.
        values: the readings in `unit`, finite, shape (n,).
        unit: for the message.
    """
    limits = RANGES.get(quantity)
    if limits is not None and values.size:
        least, most = limits
        wrong = values[(values < least) | (values > most)]
        if wrong.size:
            return f"it read {wrong[0]:g} {unit}, which is not between {least:g} and {most:g} {unit}"
    if quantity in _STEPPED and values.size > 1:
        sizes = np.abs(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where((sizes[:-1] > 0) & (sizes[1:] > 0), sizes[1:] / sizes[:-1], 1.0)
        for at in map(int, np.flatnonzero((steps > _STEP) | (steps < 1 / _STEP))):
            before, after = (part[part > 0] for part in (sizes[: at + 1], sizes[at + 1 :]))
            if max(before.min() / after.max(), after.min() / before.max()) < _STAYS:
                continue
            return (
                f"it went from {values[at]:g} to {values[at + 1]:g} {unit} at one reading: "
                f"its unit seems to have changed"
            )
    return ""


def apart(medians: Mapping[str, float]) -> dict[str, str]:
    """Return why thermal zones cannot be true beside the others, by sensor.

    Args:
        medians: each zone's median over a run in degC, by sensor.
    """
    if len(medians) < 3:
        return {}
    usual = float(np.median(list(medians.values())))
    return {
        name: f"it read {value:g} degC where the median of all zones was {usual:g} degC"
        for name, value in medians.items()
        if usual > 5 and not usual / _APART < value < usual * _APART
    }
