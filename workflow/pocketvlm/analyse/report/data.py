"""What the page shows of the tables: the headline, each cell's numbers with their runs, what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pocketvlm.analyse.figures import labels, palette
from pocketvlm.analyse.figures.reasons import condensed, condensed_gate
from pocketvlm.analyse.numbers import grouped, interval, interval_decimals, number, slug

VALUE_LIMIT = 120_000
"""Up to so many values of single runs stand in the page; beyond, only those of the headline do."""


Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the headline table: a metric of a phase, its name, its unit and the factor to it."""

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
    """One cell: who it is, its headline (in the order of COLUMNS), all numbers by phase, its runs' names.

    `absent` says why the cell was not measured at all; it is empty for a cell that has runs.
    """

    index: str
    cell: Mapping[str, Any]
    label: str
    tags: tuple[str, ...]
    headline: tuple[Statistic, ...]
    phases: tuple[tuple[str, tuple[Row, ...]], ...]
    runs: tuple[str, ...]
    absent: str = ""


def _absent(cell: Record, records: Sequence[Record], runs: Sequence[str]) -> str:
    """Return why a cell has no run: as the experiment says, or else as its rows of the table do."""
    if runs:
        return ""
    told = [_text(cell.get("unavailable")), *(_text(record["gate"]) for record in records)]
    return next((text for text in told if text), "it was not measured, and no reason is recorded")


def _text(value: Any) -> str:
    """Return a table's text; empty for NA."""
    return "" if value is None or pd.isna(value) else str(value)


_MEDIAN = ("median", "ci_low", "ci_high")


def _statistic(
    record: Record | None, row: str, reasons: Sequence[str], factor: float = 1.0, places: int | None = None
) -> Statistic:
    if record is None or math.isnan(float(record["median"])):
        gate = condensed_gate(_text(record["gate"])) if record is not None else ""
        reason = gate or "; ".join(condensed(reasons)) or "not recorded by this device or framework"
        return Statistic(row, 0, "", "", "", reason)
    median, low, high = (float(record[name]) * factor for name in _MEDIAN)
    return Statistic(row, int(record["n"]), *interval(median, low, high, places), "")


def _column_decimals(
    cells: Sequence[Mapping[str, Any]], summary: pd.DataFrame
) -> dict[tuple[str, Column], int]:
    """Return for each device and column of the headline the decimals that all its cells are given."""
    found: dict[tuple[str, Column], int] = {}
    ids = {cell["cell"]: str(cell["device"]) for cell in cells}
    shown = summary[summary["cell"].isin(ids) & summary["median"].notna()]
    for column in COLUMNS:
        mine = shown[(shown["phase"] == column.phase) & (shown["metric"] == column.metric)]
        for record in mine.to_dict("records"):
            key = (ids[record["cell"]], column)
            suits = interval_decimals(*(float(record[name]) * column.factor for name in _MEDIAN))
            found[key] = max(found.get(key, 0), suits)
    return found


def phase_order(phase: str) -> int:
    """Return where a phase stands on the page: the whole run first."""
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
        if missing:
            text = ""
        elif record["unit"] == "1" and float(record["value"]).is_integer():
            text = grouped(float(record["value"]), 0)
        else:
            text = number(float(record["value"]), 4)
        out.append(
            Value(
                text, gate or (_text(record["reason"]) or "no reason recorded" if missing else ""), bool(gate)
            )
        )
    return tuple(out)


def _row_of(rows: Mapping[tuple[str, str], Row], column: Column) -> Row | None:
    """Return the row of a column: where no `temperature_max.cpu` is, `temperature_max` tells why."""
    stem = column.metric.partition(".")[0]
    return rows.get((column.phase, column.metric)) or rows.get((column.phase, stem))


def cell_data(
    cells: Sequence[Mapping[str, Any]],
    summary: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    value_limit: int = VALUE_LIMIT,
) -> list[CellData]:
    """Return every cell with its numbers, in the order of the experiment.

    Args:
        cells: the entries of `cells.json`.
        summary: `cells.csv`.
        runs: `runs.parquet`.
        value_limit: beyond so many values, only the headline's metrics keep the values of single runs.
    """
    names = labels.short_labels(cells)
    places = _column_decimals(cells, summary)
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
            pair = (str(key[0]), str(key[1]))
            values = _values(group, own_runs)
            reasons = sorted({value.why for value in values if value.why})
            row = slug("v", index, *pair)
            record = summarised.get(pair)
            statistic = _statistic(record, row, reasons)
            shown = values if all_values or pair in wanted else ()
            gate = condensed_gate(_text(record["gate"])) if record else ""
            why = statistic.reason or gate or "; ".join(condensed(reasons))
            rows[pair] = Row(row, *pair, str(group["unit"].iloc[0]), statistic, shown, why)
        headline = tuple(
            _statistic(
                summarised.get((column.phase, column.metric)),
                own.id if (own := _row_of(rows, column)) else "",
                [own.why] if own and own.why else [],
                column.factor,
                places.get((str(cell["device"]), column)),
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
                absent=_absent(cell, list(summarised.values()), own_runs),
            )
        )
    return out
