"""The soak for the page: what each cell's device keeps up, in rows of words, number and unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.analyse.report.compared import unit_text
from pocketvlm.analyse.report.extras import check_columns, quantity_text, read_table
from pocketvlm.analyse.soak.tables import SUMMARY

_NAMES = {
    "duration": "Duration",
    "runs": "Runs",
    "busy": "Busy",
    "gap": "Time between runs",
    "cut_short": "Earlier soaks cut short",
    "runs_without_speed": "Runs without a speed",
    "first_speed": "Speed in the first minute",
    "sustained_speed": "Speed in the last third",
    "sustained_ratio": "Sustained against first",
    "time_to_throttle": "Time to throttle",
    "throttled": "Throttled",
    "power_first": "Power in the first minute",
    "power_sustained": "Power in the last third",
    "energy": "Energy of all runs",
    "clock_first": "Clock in the first minute",
    "clock_sustained": "Clock in the last third",
    "temperature_start": "Temperature at the start",
    "temperature_end": "Temperature at the end",
    "temperature_max": "Highest temperature",
}


@dataclass(frozen=True)
class SoakRow:
    """One quantity: value and interval as they should be read, empty where NA; then `note` says why."""

    name: str
    value: str
    low: str
    high: str
    unit: str
    note: str


@dataclass(frozen=True)
class SoakTable:
    """One cell's soak."""

    label: str
    tags: tuple[str, ...]
    rows: tuple[SoakRow, ...]


def read_soak(
    path: Path, names: Mapping[str, str], tags: Mapping[str, tuple[str, ...]]
) -> tuple[SoakTable, ...]:
    """Return the soak of each cell.

    Args:
        path: `soak_summary.csv`.
        names: cell → what it is called on the page.
        tags: cell → what must be said with its numbers.

    Raises:
        IntegrityError: the file is not there or lacks a column of docs/formats.md.
    """
    frame = read_table(path)
    check_columns(frame, path, *SUMMARY)
    tables = []
    for cell, rows in frame.groupby("cell", sort=False):
        shown = []
        for record in rows.to_dict("records"):
            row = {str(name): str(value) for name, value in record.items()}
            quantity, _, component = row["quantity"].partition(".")
            name = _NAMES.get(quantity, quantity)
            value, low, high = (quantity_text(row[column]) for column in ("value", "ci_low", "ci_high"))
            shown.append(
                SoakRow(
                    f"{name}, {component}" if component else name,
                    value,
                    low,
                    high,
                    unit_text(row["unit"]),
                    row["note"],
                )
            )
        tables.append(SoakTable(names.get(str(cell), str(cell)), tags.get(str(cell), ()), tuple(shown)))
    return tuple(tables)
