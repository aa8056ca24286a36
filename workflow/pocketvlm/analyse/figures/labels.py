"""What cells and devices are called in figures and in the report, and which tags they must carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cell = Mapping[str, Any]

AXES = ("framework", "version", "backend", "model", "quantisation", "workload", "settings")

EMULATED = "emulated phone"
SYNTHETIC = "synthetic weights"

MEANING = {
    EMULATED: "The phone is emulated on this machine: its speed, power and temperature are no phone's.",
    SYNTHETIC: "The weights are random: speed is measured, the answers mean nothing.",
}


def tags(cells: Iterable[Cell]) -> list[str]:
    """Return the tags that whatever shows these cells must carry, the weightiest first."""
    listed = list(cells)
    found = []
    if any(cell["device_kind"] == "emulated" for cell in listed):
        found.append(EMULATED)
    if any(cell["weights_kind"] == "synthetic" for cell in listed):
        found.append(SYNTHETIC)
    return found


def by_device(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each device, both in the order of the experiment."""
    grouped: dict[str, list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(str(cell["device"]), []).append(cell)
    return grouped


def short_labels(cells: Sequence[Cell]) -> dict[str, str]:
    """Return for each cell id what tells it from the others of its device; at least its quantisation."""
    labels = {}
    for mine in by_device(cells).values():
        varying = [axis for axis in AXES if len({str(cell[axis]) for cell in mine}) > 1] or ["quantisation"]
        for cell in mine:
            labels[str(cell["cell"])] = " ".join(str(cell[axis]) for axis in varying)
    return labels


def shared_text(cells: Sequence[Cell]) -> str:
    """Return what these cells of one device have in common: `llama.cpp 0.3.16 cpu, synthetic-llava-nano`."""
    same = [str(cells[0][axis]) if len({str(cell[axis]) for cell in cells}) == 1 else "" for axis in AXES]
    runtime = " ".join(part for part in same[:3] if part)
    return ", ".join(part for part in (runtime, *same[3:]) if part)
