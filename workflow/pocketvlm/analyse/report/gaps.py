"""What the tables lack: withheld by a gate, or never exposed. One entry a kind of reason, not one a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pocketvlm.analyse.figures import palette, reasons
from pocketvlm.analyse.report.data import CellData, phase_order

MANY = 3
"""A metric of more parts (`temperature_max.cpu`, …) is listed once, with their number."""


@dataclass(frozen=True)
class Metrics:
    """Metrics that lack a value in the same phases: the phases in words, the metrics in short and in full."""

    phases: str
    short: tuple[str, ...]
    full: tuple[str, ...]


@dataclass(frozen=True)
class Closed:
    """What a gate says of one run, in its own words."""

    run: str
    gates: tuple[str, ...]


@dataclass(frozen=True)
class Withheld:
    """What one kind of gate keeps out of a device's tables: which metrics, and of each cell which runs."""

    device: str
    gate: str
    metrics: tuple[Metrics, ...]
    cells: tuple[tuple[CellData, tuple[Closed, ...]], ...]


@dataclass(frozen=True)
class Absent:
    """What one kind of reason leaves without a value on a device, and how many values of single runs."""

    device: str
    reason: str
    metrics: tuple[Metrics, ...]
    count: int


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics with those of many parts as one: `temperature_max.* (7)`."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.partition(".")[0], []).append(name)
    out: list[str] = []
    for stem, found in parts.items():
        out += [f"{stem}.* ({len(found)})"] if len(found) > MANY else found
    return tuple(out)


def by_phases(rows: pd.DataFrame) -> tuple[Metrics, ...]:
    """Return the metrics of rows by the phases that they concern, whole run first."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for metric, found in rows.groupby("metric", sort=True)["phase"].unique().items():
        listed = tuple(sorted((str(phase) for phase in found), key=phase_order))
        groups.setdefault(listed, []).append(str(metric))
    out = []
    for phases, names in sorted(groups.items(), key=lambda item: [phase_order(phase) for phase in item[0]]):
        everywhere = len(phases) == len(palette.PHASES) + 1
        where = "every phase" if everywhere else ", ".join(palette.PHASE_LABELS[phase] for phase in phases)
        out.append(Metrics(where, _short(names), tuple(names)))
    return tuple(out)


def withheld(cells: Sequence[CellData], runs: pd.DataFrame) -> list[Withheld]:
    """Return what gates keep out of the tables: one entry a device and kind of gate.

    Args:
        cells: the cells of the page.
        runs: `runs.parquet`.
    """
    gated = runs[runs["gate"].fillna("") != ""]
    gated = gated.assign(kind=gated["gate"].astype(str).map(reasons.template))
    out = []
    for device in dict.fromkeys(str(data.cell["device"]) for data in cells):
        for _, group in gated[gated["device"] == device].groupby("kind", sort=True):
            found = []
            for data in cells:
                mine = group[group["cell"] == data.cell["cell"]]
                told = {
                    str(run): tuple(sorted(set(rows["gate"].astype(str))))
                    for run, rows in mine.groupby("run")
                }
                if told:
                    found.append((data, tuple(Closed(run, told[run]) for run in data.runs if run in told)))
            text = reasons.merged(sorted(set(group["gate"].astype(str))))
            out.append(Withheld(device, text, by_phases(group), tuple(found)))
    return out


def withheld_count(runs: pd.DataFrame) -> int:
    """Return of how many numbers (a cell, phase and metric) a gate keeps at least one run out."""
    gated = runs[runs["gate"].fillna("") != ""]
    return len(gated[["cell", "phase", "metric"]].drop_duplicates())


def absent(runs: pd.DataFrame) -> list[Absent]:
    """Return the reasons for missing values, one entry a device and kind of reason."""
    missing = runs[runs["value"].isna()]
    told = missing["reason"].fillna("").replace("", "no reason recorded").astype(str)
    missing = missing.assign(reason=told, kind=told.map(reasons.template))
    return [
        Absent(str(key[0]), reasons.merged(group["reason"]), by_phases(group), len(group))
        for key, group in missing.groupby(["device", "kind"], sort=True)
    ]
