"""This experiment's numbers, by the rows of the paper: which cells stand for a stack, and what they gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pocketvlm.analyse.figures import labels, reasons
from pocketvlm.analyse.stats import summarise
from pocketvlm.config.paper import Paper, Stack

Cell = Mapping[str, Any]

KINDS = {"local": "this machine, no phone", "phone": "phone", "emulated": labels.EMULATED}
"""What a kind of device is called beside a published number."""

_SHORT = {KINDS["local"]: "no phone", labels.EMULATED: "emulated", labels.SYNTHETIC: "synthetic"}

NO_CELL = "no cell of this experiment runs this stack"


@dataclass(frozen=True)
class Estimate:
    """What repeated runs gave: a median of n with its interval, or None and why.

    Attributes:
        median, low, high: in the metric's unit; no interval below three runs.
        note: why there is no value; or, beside a value, which runs are missing and why. Empty otherwise.
    """

    median: float | None
    n: int = 0
    low: float | None = None
    high: float | None = None
    note: str = ""


class Results:
    """The tables of an experiment, asked by cell."""

    def __init__(self, summary: pd.DataFrame, runs: pd.DataFrame, bootstrap: Mapping[str, Any]) -> None:
        """Take `cells.csv`, `runs.parquet` and `analysis.bootstrap` of the configuration."""
        self.runs = runs
        self._bootstrap = dict(bootstrap)
        # Only columns that are asked for: an experiment without a run has no other types to offer.
        columns = ["cell", "phase", "metric", "n", "median", "ci_low", "ci_high", "gate"]
        self._rows = {
            (str(row["cell"]), str(row["phase"]), str(row["metric"])): row
            for row in summary[columns].to_dict("records")
        }

    @property
    def interval_text(self) -> str:
        """What an interval is called: `95 % interval`."""
        return f"{100 * float(self._bootstrap['confidence']):g} % interval"

    def of(self, cell: Cell, phase: str, metric: str) -> Estimate:
        """Return a metric of a cell as `cells.csv` has it."""
        row = self._rows.get((str(cell["cell"]), phase, metric))
        if row is None:
            return Estimate(None, note=str(cell.get("unavailable") or "not recorded"))
        note = _text(row["gate"])
        median = _number(row["median"])
        if median is None or not int(row["n"]):
            return Estimate(None, note=note or str(cell.get("unavailable") or "not recorded"))
        return Estimate(median, int(row["n"]), _number(row["ci_low"]), _number(row["ci_high"]), note)

    def sum_of(self, cell: Cell, phases: Sequence[str]) -> Estimate:
        """Return the duration of several phases together, ms: added up run by run, then summarised.

        A run of which one of the phases is missing or withheld gives no sum.
        """
        mine = self.runs[
            (self.runs["cell"] == cell["cell"])
            & (self.runs["metric"] == "duration")
            & self.runs["phase"].isin(phases)
            & self.runs["value"].notna()
            & (self.runs["gate"].fillna("") == "")
        ]
        wide = mine.pivot_table(index="run", columns="phase", values="value", aggfunc="first")
        sums = wide.reindex(columns=list(phases)).sort_index().sum(axis=1, skipna=False).dropna()
        parts = [self.of(cell, phase, "duration") for phase in phases]
        notes = reasons.condensed(dict.fromkeys(part.note for part in parts if part.note))
        note = "; ".join(notes)
        if sums.empty:
            return Estimate(None, note=note or "no run has all of its phases")
        found = summarise(
            np.asarray(sums, dtype=np.float64), name=f"{cell['cell']}|{'+'.join(phases)}", **self._bootstrap
        )
        return Estimate(found.median, found.n, found.ci_low, found.ci_high, note)

    def measured(self, cell: Cell) -> bool:
        """Say whether any duration of a cell stands in the tables."""
        return any(
            int(row["n"])
            for (name, _, metric), row in self._rows.items()
            if name == cell["cell"] and metric == "duration"
        )

    def metrics(self, cell: Cell, prefix: str) -> list[tuple[str, str, Estimate]]:
        """Return (phase, metric, value) of each of a cell's metrics `prefix` or `prefix.<class>`."""
        return [
            (phase, metric, self.of(cell, phase, metric))
            for name, phase, metric in self._rows
            if name == cell["cell"] and (metric == prefix or metric.startswith(f"{prefix}."))
        ]

    def why_not(self, cell: Cell) -> str:
        """Return why a cell has no run in the tables, in few words."""
        if cell.get("unavailable"):
            return str(cell["unavailable"])
        return self.of(cell, "run", "duration").note


def by_stack(paper: Paper, cells: Iterable[Cell]) -> list[tuple[Stack, list[Cell]]]:
    """Return each stack of the paper with the cells that stand for it, both in their own order."""
    listed = list(cells)
    return [(stack, [cell for cell in listed if cell.get("stack") == stack.id]) for stack in paper.stacks]


def further(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that stand for no stack of the paper."""
    return [cell for cell in cells if not cell.get("stack")]


def kind_text(cells: Sequence[Cell], *, short: bool = False) -> str:
    """Return what a reader must know of these cells of one device before comparing, e.g. `emulated phone`.

    The short form is for a row of a table that says it in full elsewhere: `emulated, synthetic`.
    """
    kind = str(cells[0]["device_kind"])
    words = [KINDS.get(kind, kind)]
    words += [tag for tag in labels.tags(cells) if tag not in words]
    return ", ".join(_SHORT.get(word, word) if short else word for word in words)


def cell_text(cell: Cell) -> str:
    """Return one line that says what a cell is, and that it is emulated or synthetic where it is."""
    runtime = f"{cell['framework']} {cell['version']} {cell['backend']}"
    return f"{cell['device']}, {cell['model']} {cell['quantisation']}, {runtime} [{kind_text([cell])}]"


def remarks(cells: Sequence[Cell]) -> list[str]:
    """Return what must stand below a table that shows these cells beside published numbers."""
    found = [f"{tag.capitalize()}: {labels.MEANING[tag]}" for tag in labels.tags(cells)]
    if any(cell["device_kind"] == "local" for cell in cells):
        found.append("This machine is no phone: it is told apart from the paper's device in every row.")
    if any(not _like_theirs(cell) for cell in cells):
        found.append(
            "Numbers of an emulated phone, of synthetic weights or of another machine stand beside the "
            "published ones to be compared with them; they are no reproduction of them."
        )
    return found


def _like_theirs(cell: Cell) -> bool:
    return bool(cell["device_kind"] == "phone" and cell["weights_kind"] != "synthetic")


def _number(value: Any) -> float | None:
    return None if value is None or value == "" or pd.isna(value) else float(value)


def _text(value: Any) -> str:
    return "" if value is None or value != value else reasons.condensed_gate(str(value))
