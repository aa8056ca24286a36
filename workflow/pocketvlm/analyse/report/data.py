"""What the page shows of the tables: the headline, each cell's numbers with the runs behind them, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pocketvlm.analyse.figures import labels, palette
from pocketvlm.analyse.report.numbers import interval, number, slug

VALUE_LIMIT = 120_000
"""Up to so many values of single runs stand in the page; beyond, those of the headline do and a table has the rest."""


@dataclass(frozen=True)
class Column:
    """One column of the headline table: a metric of a phase, its name and unit, and the factor to that unit."""

    phase: str
    metric: str
    name: str
    unit: str
    factor: float = 1.0


COLUMNS = (
    Column("run", "duration", "Whole run", "s", 1e-3),
    Column("run", "time_to_first_token", "First token", "s", 1e-3),
    Column("image_encode", "duration", "Image encode", "s", 1e-3),
    Column("image_prefill", "tokens_per_second", "Image prefill", "tokens/s"),
    Column("decode", "tokens_per_second", "Decode", "tokens/s"),
    Column("run", "energy_net", "Energy, net", "J"),
    Column("decode", "energy_net_per_token", "Energy a token, net", "J"),
    Column("run", "temperature_max.cpu", "Hottest CPU", "°C"),
    Column("run", "rss_peak", "Peak memory", "MiB"),
)


@dataclass(frozen=True)
class Statistic:
    """A median and its interval as text, or the reason why there is none; `row` is the id of its row."""

    row: str
    n: int
    median: str
    low: str
    high: str
    reason: str


@dataclass(frozen=True)
class Value:
    """One run's value as text; `why` holds its gate or the reason why it is missing."""

    text: str
    why: str
    withheld: bool


@dataclass(frozen=True)
class Row:
    """One phase and metric of a cell, with the value of each run in the order of `CellData.runs`."""

    id: str
    phase: str
    metric: str
    unit: str
    statistic: Statistic
    values: tuple[Value, ...]
    why: str


@dataclass(frozen=True)
class CellData:
    """One cell: who it is, its headline numbers (in the order of COLUMNS), all numbers by phase, its runs' names."""

    index: str
    cell: Mapping[str, Any]
    label: str
    tags: tuple[str, ...]
    headline: tuple[Statistic, ...]
    phases: tuple[tuple[str, tuple[Row, ...]], ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Withheld:
    """Numbers of one metric of a cell that a gate keeps out of the tables."""

    cell: CellData
    phase: str
    metric: str
    gate: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Absent:
    """What one reason leaves without a value on a device: metrics by phase, and how many values."""

    device: str
    reason: str
    metrics: tuple[str, ...]
    count: int


def _text(value: Any) -> str:
    """Return a table's text; empty for NA."""
    return "" if pd.isna(value) else str(value)


def _statistic(record: Mapping[str, Any] | None, row: str, column: Column | None, reasons: Sequence[str]) -> Statistic:
    factor = column.factor if column else 1.0
    if record is None or pd.isna(record["median"]):
        gate = _text(record["gate"]) if record is not None else ""
        reason = gate or "; ".join(reasons) or "not recorded by this device or framework"
        return Statistic(row, 0, "", "", "", reason)
    median, low, high = (float(record[name]) * factor for name in ("median", "ci_low", "ci_high"))
    texts = interval(median, low, high)
    return Statistic(row, int(record["n"]), *texts, "")


def _order(phase: str) -> int:
    return ("run", *palette.PHASES).index(phase)


def _values(group: pd.DataFrame, runs: Sequence[str]) -> tuple[Value, ...]:
    by_run = {str(record["run"]): record for record in group.to_dict("records")}
    out = []
    for run in runs:
        record = by_run.get(run)
        if record is None:
            out.append(Value("", "not recorded in this run", False))
            continue
        gate = _text(record["gate"])
        missing = pd.isna(record["value"])
        text = "" if missing else number(float(record["value"]), 4)
        out.append(Value(text, gate or (_text(record["reason"]) or "no reason recorded" if missing else ""), bool(gate)))
    return tuple(out)


def cell_data(
    cells: Sequence[Mapping[str, Any]], summary: pd.DataFrame, runs: pd.DataFrame, *, value_limit: int = VALUE_LIMIT
) -> list[CellData]:
    """Return every cell with its numbers, in the order of the experiment.

    Args:
        cells: the entries of `cells.json`.
        summary: `cells.csv`.
        runs: `runs.parquet`.
        value_limit: beyond so many values, only the headline's metrics keep the values of single runs.
    """
    names = labels.short_labels(cells)
    all_values = len(runs) <= value_limit
    wanted = {(column.phase, column.metric): column for column in COLUMNS}
    out = []
    for place, cell in enumerate(cells, start=1):
        index = f"c{place}"
        mine = runs[runs["cell"] == cell["cell"]]
        ordered = mine.drop_duplicates("run").sort_values(["round", "position"])
        own_runs = tuple(str(run) for run in ordered["run"])
        summarised = {
            (str(record["phase"]), str(record["metric"])): record
            for record in summary[summary["cell"] == cell["cell"]].to_dict("records")
        }
        rows: dict[tuple[str, str], Row] = {}
        for key, group in mine.groupby(["phase", "metric"], sort=False):
            pair = (str(key[0]), str(key[1]))  # type: ignore[index]
            values = _values(group, own_runs)
            reasons = sorted({value.why for value in values if value.why})
            row = slug("v", index, *pair)
            statistic = _statistic(summarised.get(pair), row, None, reasons)
            shown = values if all_values or pair in wanted else ()
            why = statistic.reason or "; ".join(reasons)
            rows[pair] = Row(row, *pair, str(group["unit"].iloc[0]), statistic, shown, why)
        headline = tuple(
            _statistic(
                summarised.get((column.phase, column.metric)),
                row.id if (row := rows.get((column.phase, column.metric))) else "",
                column,
                [row.statistic.reason] if row and row.statistic.reason else [],
            )
            for column in COLUMNS
        )
        out.append(
            CellData(
                index=index,
                cell=cell,
                label=names[str(cell["cell"])],
                tags=tuple(labels.tags([cell])),
                headline=headline,
                phases=tuple(
                    (phase, found)
                    for phase in ("run", *palette.PHASES)
                    if (found := tuple(one for one in rows.values() if one.phase == phase))
                ),
                runs=own_runs,
            )
        )
    return out


def withheld(cells: Sequence[CellData], runs: pd.DataFrame) -> list[Withheld]:
    """Return what gates keep out of the tables: one entry a cell, phase, metric and gate."""
    gated = runs[runs["gate"].fillna("") != ""]
    out = []
    for data in cells:
        mine = gated[gated["cell"] == data.cell["cell"]]
        for key, group in mine.groupby(["phase", "metric", "gate"], sort=True):
            phase, metric, gate = (str(part) for part in key)  # type: ignore[union-attr]
            out.append(Withheld(data, phase, metric, gate, tuple(sorted(group["run"].astype(str)))))
    return out


def absent(runs: pd.DataFrame) -> list[Absent]:
    """Return the reasons for missing values, one entry a device and reason."""
    missing = runs[runs["value"].isna()].assign(reason=lambda frame: frame["reason"].fillna("").replace("", "not said"))
    out = []
    for key, group in missing.groupby(["device", "reason"], sort=True):
        device, reason = (str(part) for part in key)  # type: ignore[union-attr]
        phases = group.groupby("metric", sort=True)["phase"].unique()
        metrics = []
        for metric, found in phases.items():
            listed = sorted((str(phase) for phase in found), key=_order)
            everywhere = len(listed) == len(palette.PHASES) + 1
            where = "" if everywhere else f" ({', '.join(palette.PHASE_LABELS[phase] for phase in listed)})"
            metrics.append(f"{metric}{where}")
        out.append(Absent(device, reason, tuple(metrics), len(group)))
    return out
