"""How a device answers meanwhile, by phase: what a person who scrolls or types would notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pocketvlm.analyse.figures import palette
from pocketvlm.analyse.figures.reasons import condensed_gate
from pocketvlm.analyse.numbers import number
from pocketvlm.analyse.report.data import CellData

FRAMES_MS = {60: 1000 / 60, 120: 1000 / 120}
"""Length of a frame in ms at a display's rate in Hz."""

MISSED = "missed_deadlines_"
"""Prefix of metrics that count deadlines, `missed_deadlines_60hz`; their unit is %."""

BESIDES = {
    "shell_round_trip_p50": "shell p50, ms",
    "shell_round_trip_p99": "shell p99, ms",
    "frames": "frames",
    "jank_percent": "jank",
}
"""What an experiment may ask for besides, and its column's heading; shown where a phase has a number."""


@dataclass(frozen=True)
class Lateness:
    """Medians over runs of a phase: p50 and p99 of the lateness in ms as text, and p99 as shares of frames.

    Attributes:
        share: p99 as a part of a 60 Hz frame, at most 1, for the bar.
        missed: (metric's rate, text with its unit) of missed deadlines, where measured.
        besides: (heading of BESIDES, text) of what else was watched, where measured.
        reason: why there is no number; empty when there is one.
        rows: ids of the rows of p50 and p99 among all values.
    """

    phase: str
    p50: str
    p99: str
    share: float
    worst: str
    missed: tuple[tuple[str, str], ...]
    besides: tuple[tuple[str, str], ...]
    reason: str
    row: str


def _verdict(p99_ms: float) -> str:
    """Return in words what a lateness means for a display."""
    for rate in sorted(FRAMES_MS, reverse=True):
        if p99_ms < FRAMES_MS[rate]:
            return f"within a {rate}\u00a0Hz frame"
    return f"more than a {min(FRAMES_MS)}\u00a0Hz frame"


def _with_unit(record: pd.Series[Any]) -> str:
    """Return a median as text, with its unit where that is per cent; other units stand in the heading."""
    text = number(float(record["median"]))
    return f"{text}\u00a0%" if record["unit"] == "%" else text


def lateness(one: CellData, summary: pd.DataFrame) -> tuple[Lateness, ...]:
    """Return each phase's lateness of a cell, the whole run first; empty where nothing of it was recorded.

    Args:
        one: the cell.
        summary: `cells.csv`.
    """
    mine = summary[summary["cell"] == one.cell["cell"]]
    ids = {(row.phase, row.metric): row.id for _, rows in one.phases for row in rows}
    out = []
    for phase in ("run", *palette.PHASES):
        of_phase = mine[mine["phase"] == phase].set_index("metric")
        if "wake_late_p99" not in of_phase.index:
            continue
        p99 = of_phase.loc["wake_late_p99"]
        p50 = of_phase.loc["wake_late_p50"] if "wake_late_p50" in of_phase.index else p99
        row = ids.get((phase, "wake_late_p99"), "")
        missed = tuple(
            (str(name).removeprefix(MISSED), f"{number(float(record['median']))}\u00a0%")
            for name, record in of_phase.iterrows()
            if str(name).startswith(MISSED) and pd.notna(record["median"])
        )
        besides = tuple(
            (heading, _with_unit(of_phase.loc[name]))
            for name, heading in BESIDES.items()
            if name in of_phase.index and pd.notna(of_phase.loc[name, "median"])
        )
        if pd.isna(p99["median"]):
            reason = condensed_gate(str(p99["gate"])) if pd.notna(p99["gate"]) else "no reason recorded"
            out.append(Lateness(phase, "", "", 0.0, "", missed, besides, reason, row))
            continue
        value = float(p99["median"])
        out.append(
            Lateness(
                phase=phase,
                p50=number(float(p50["median"]), 2) if pd.notna(p50["median"]) else "NA",
                p99=number(value, 2),
                share=min(1.0, value / FRAMES_MS[60]),
                worst=_verdict(value),
                missed=missed,
                besides=besides,
                reason="",
                row=row,
            )
        )
    return tuple(out)


def shown(cells: Sequence[CellData], summary: pd.DataFrame) -> dict[str, tuple[Lateness, ...]]:
    """Return the lateness of each cell by its index on the page."""
    return {one.index: lateness(one, summary) for one in cells}
