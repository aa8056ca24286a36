"""Table 1: the paper's evaluation metrics, how each is measured here, and where it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm.analyse import manuscript
from pocketvlm.analyse.figures import labels, reasons
from pocketvlm.analyse.manuscript import Entry
from pocketvlm.analyse.paper import ours
from pocketvlm.analyse.paper.latency import slug
from pocketvlm.analyse.paper.ours import Cell, Results
from pocketvlm.config.paper import Paper

COLUMNS = (
    "experiment",
    "metric",
    "measured_as",
    "metrics",
    "unit",
    "how",
    "device",
    "device_kind",
    "label",
    "available",
    "cells_measured",
    "cells",
    "reason",
)


@dataclass(frozen=True)
class Quantity:
    """A metric of this project that answers to one of the paper's.

    Attributes:
        name: in words.
        metric: its name in `cells.csv`, or what stands before the dot.
        unit: its unit.
        how: from what it is measured.
    """

    name: str
    metric: str
    unit: str
    how: str


HERE = {
    "inference latency": (
        Quantity("duration of each phase", "duration", "ms", "boundaries seen in the output, one clock"),
        Quantity("time to first token", "time_to_first_token", "ms", "arrival of the answer's first piece"),
        Quantity("tokens per second", "tokens_per_second", "1/s", "tokens over the phase's duration"),
    ),
    "hardware utilization": (
        Quantity("CPU of the workload", "workload_cpu", "% of one core", "/proc/<pid>/stat, every 100 ms"),
        Quantity("GPU busy", "gpu_busy", "%", "the GPU driver's node, time mean"),
        Quantity("NPU busy", "npu_busy", "%", "the NPU driver's node, time mean"),
        Quantity("memory of the workload", "rss_peak", "MiB", "/proc/<pid>/statm, largest sample"),
    ),
    "power consumption": (
        Quantity("power", "power", "W", "battery current x voltage, or RAPL; gross and net of idle"),
        Quantity("energy", "energy", "J", "the integral of power over the phase"),
    ),
    "thermal behavior": (
        Quantity("highest temperature", "temperature_max", "degC", "thermal zones by type"),
        Quantity("rise of temperature", "temperature_rise", "K", "highest less the phase's start"),
    ),
    "user responsiveness": (
        Quantity("lateness of wake-ups, p99", "wake_late_p99", "ms", "a thread that wakes every frame"),
    ),
}
"""The paper's names of metrics, lower case, and what of this project answers to them."""

MEASURED, PARTLY = "measured", "measured in part"
NO_COUNTERPART = "no metric of this project answers to it"


def build(
    experiment: str, paper: Paper, cells: Sequence[Cell], results: Results
) -> tuple[manuscript.Table, list[dict[str, Any]]]:
    """Return table 1 for a manuscript, a column a device, and the same as rows of `COLUMNS`."""
    devices = labels.by_device(cells)
    rows: list[Sequence[str | Entry] | None] = []
    numbers: list[dict[str, Any]] = []
    for name in paper.at("table1", "metrics"):
        if rows:
            rows.append(None)
        head = name
        for quantity in HERE.get(str(name).lower(), ()):
            entries = []
            for device, mine in devices.items():
                found = _availability(mine, quantity, results)
                entries.append(Entry(found["available"], (found["reason"],) if found["reason"] else ()))
                numbers.append(_number(experiment, name, device, mine, quantity, found))
            rows.append([head, quantity.name, quantity.unit, quantity.how, *entries])
            head = ""
        if head:
            entries = [Entry(manuscript.NA, (NO_COUNTERPART,)) for _ in devices]
            rows.append([head, "", "", "", *entries])
            found = {"available": manuscript.NA, "cells_measured": 0, "reason": NO_COUNTERPART}
            numbers += [
                _number(experiment, name, device, mine, None, found) for device, mine in devices.items()
            ]
    heads = [f"{device} ({ours.kind_text(mine, short=True)})" for device, mine in devices.items()]
    caption = (
        f"Table 1 in the layout of {paper.citation}: evaluation metrics, how each is measured in this "
        f"project, and whether the experiment {experiment} has it"
    )
    table = manuscript.Table(
        caption=f"{caption}.",
        label=f"{slug(experiment)}:paper-table1",
        columns=["Metric", "Measured here as", "Unit", "From", *heads],
        rows=rows,
        align=["l", "l", "l", "l", *"l" * len(heads)],
        remarks=["NA: not available, for the reason given.", *ours.remarks(cells)],
        wide=True,
    )
    return table, numbers


def _availability(cells: Sequence[Cell], quantity: Quantity, results: Results) -> dict[str, Any]:
    """Return whether a device has a quantity in any phase of its cells, and why where it has not."""
    having = 0
    why: list[str] = []
    for cell in cells:
        found = results.metrics(cell, quantity.metric)
        if any(value.median is not None for _, _, value in found):
            having += 1
            continue
        told = [value.note for _, _, value in found if value.note]
        why += told or [results.why_not(cell) or "not recorded"]
    reason = "; ".join(reasons.condensed(dict.fromkeys(why)))
    if not having:
        return {"available": manuscript.NA, "cells_measured": 0, "reason": reason}
    if having < len(cells):
        text = f"{having} of {len(cells)} cells; the others: {reason}"
        return {"available": PARTLY, "cells_measured": having, "reason": text}
    return {"available": MEASURED, "cells_measured": having, "reason": ""}


def _number(
    experiment: str,
    name: str,
    device: str,
    cells: Sequence[Cell],
    quantity: Quantity | None,
    found: dict[str, Any],
) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "metric": name,
        "measured_as": quantity.name if quantity else "",
        "metrics": quantity.metric if quantity else "",
        "unit": quantity.unit if quantity else "",
        "how": quantity.how if quantity else "",
        "device": device,
        "device_kind": cells[0]["device_kind"],
        "label": ours.kind_text(cells),
        "cells": len(cells),
        **found,
    }
