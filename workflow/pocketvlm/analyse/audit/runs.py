"""What our own tables and records say of each run, as the audit reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pocketvlm.analyse.audit.quantity import AbsentError
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks import INTERACTION, PHASES

Floats = NDArray[np.float64]
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Run:
    """A measured run: its row of each table and record.

    Args:
        name: `<key>/<nn>`.
        cell: its cell of `cells.json`.
        metrics: (phase, metric) to (value or None, why it is missing or withheld).
        intervals: of `phases.parquet`, ordered by start.
        samples: of `samples.parquet`.
        answer_tokens: of `answers.parquet`, None if unknown.
        identity: of the device.
    """

    name: str
    cell: Mapping[str, Any]
    metrics: Mapping[tuple[str, str], tuple[float | None, str]]
    intervals: pd.DataFrame
    samples: pd.DataFrame
    answer_tokens: float | None
    identity: Mapping[str, Any]

    def get(self, phase: str, metric: str) -> float:
        """Return a number that stands in the tables.

        Raises:
            AbsentError: it is missing or withheld; the message is the reason.
        """
        value, why = self.metrics.get((phase, metric), (None, "the table has no such row"))
        if value is None or why:
            raise AbsentError(f"{metric} of {phase}: {why or 'no value'}")
        return value

    def known(self, phase: str, metric: str) -> bool:
        """Whether a number stands in the tables."""
        value, why = self.metrics.get((phase, metric), (None, ""))
        return value is not None and not why

    def spans(self, phase: str) -> Spans:
        """Return (start_us, end_us) of each interval of a phase; of `run` the whole."""
        rows = self.intervals
        if phase == "run":
            # Without interaction, in as few spans as it takes: one, where there was none.
            spans: list[tuple[int, int]] = []
            counted = rows[(rows["phase"] != INTERACTION) & (rows["end_us"] > rows["start_us"])]
            for start, end in zip(counted["start_us"], counted["end_us"], strict=True):
                if spans and spans[-1][1] == start:
                    spans[-1] = (spans[-1][0], int(end))
                else:
                    spans.append((int(start), int(end)))
            return spans
        own = rows[rows["phase"] == phase]
        return [(int(a), int(b)) for a, b in zip(own["start_us"], own["end_us"], strict=True) if b > a]

    def recorded_ms(self, phase: str) -> float:
        """Return the length of a phase's intervals together, ms."""
        return sum(end - start for start, end in self.spans(phase)) * 1e-3

    def duration_or_none(self, phase: str) -> float:
        """Return a phase's duration in ms, 0 where the run has no time in it."""
        return self.get(phase, "duration") if self.spans(phase) else 0.0

    def classes(self) -> list[str]:
        """Return the classes of temperature zones that the device has."""
        return sorted({m.partition(".")[2] for _, m in self.metrics if m.startswith("temperature_max.")})

    def device(self, name: str) -> float:
        """Return a number of the device's identity."""
        value = self.identity.get(name)
        if not isinstance(value, int | float):
            raise AbsentError(f"the device's identity has no {name}")
        return float(value)

    def series(self, quantity: str) -> tuple[Floats, Floats]:
        """Return times in us and values of the battery's first sensor of a quantity."""
        names = [
            sensor["name"]
            for sensor in self.identity.get("sensors", [])
            if sensor["quantity"] == quantity and str(sensor["component"]).startswith("battery")
        ]
        for name in names:
            if name in self._by_sensor:
                return self._by_sensor[name]
        raise AbsentError(f"no {quantity} of the battery was sampled")

    @cached_property
    def _by_sensor(self) -> dict[str, tuple[Floats, Floats]]:
        found = {}
        battery = self.samples[self.samples["quantity"].isin(["current", "voltage"])]
        for name, rows in battery[battery["value"].notna()].groupby("sensor"):
            ordered = rows.sort_values("t_us")
            found[str(name)] = (
                ordered["t_us"].to_numpy(np.float64),
                ordered["value"].to_numpy(np.float64),
            )
        return found

    def joules(self, phase: str) -> float:
        """Return current x voltage over the intervals of a phase, from the samples, J."""
        t_us, current = self.series("current")
        v_us, voltage = self.series("voltage")
        watts = current * np.interp(t_us, v_us, voltage)
        total = 0.0
        for start, end in self.spans(phase):
            inner = (t_us > start) & (t_us < end)
            times = np.concatenate(([start], t_us[inner], [end]))
            total += float(np.trapezoid(np.interp(times, t_us, watts), times)) * 1e-6
        return total


def read_runs(
    cells: Mapping[str, Any],
    runs: str | Path,
    records: Mapping[str, Mapping[str, str | Path]],
    identities: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[Run]]:
    """Return the measured runs of each cell, in the order of the tables.

    Args:
        cells: content of `cells.json`.
        runs: `tables/runs.parquet`.
        records: device to its files, by their names `phases`, `samples` and `answers`.
        identities: device to the content of its `identity.json`.

    Raises:
        IntegrityError: a file is no record, or a run of the tables is in no record.
    """
    by_cell = {cell["cell"]: cell for cell in cells["cells"]}
    found: dict[str, list[Run]] = {name: [] for name in by_cell}
    table = _read(Path(runs))
    parts = {
        device: {name: _grouped(Path(path)) for name, path in files.items()}
        for device, files in records.items()
    }
    for keys, rows in table.groupby(["cell", "run"], sort=False):
        cell, name = str(keys[0]), str(keys[1])
        if cell not in by_cell:
            raise _misfit(f"the cell {cell!r} is not in the experiment", runs)
        device = by_cell[cell]["device"]
        own = parts.get(device, {})
        lacking = [part for part in ("phases", "answers") if name not in own.get(part, {})]
        if lacking:
            raise _misfit(f"run {name} of the table is not in the record {lacking[0]}", runs)
        answer = own["answers"][name]["tokens"].iloc[0]
        found[cell].append(
            Run(
                name=name,
                cell=by_cell[cell],
                metrics={
                    (str(row.phase), str(row.metric)): _value(row.value, str(row.reason), str(row.gate))
                    for row in rows.itertuples()
                },
                intervals=own["phases"][name].sort_values(["start_us", "end_us"]),
                samples=own["samples"].get(name, pd.DataFrame({"quantity": [], "value": [], "sensor": []})),
                answer_tokens=None if pd.isna(answer) else float(answer),
                identity=identities.get(device, {}),
            )
        )
    return found


def _value(value: Any, reason: str, gate: str) -> tuple[float | None, str]:
    if pd.isna(value):
        return None, reason or "no value"
    return float(value), f"withheld: {gate}" if gate else ""


def _grouped(path: Path) -> dict[str, pd.DataFrame]:
    return {str(name): rows for name, rows in _read(path).groupby("run", sort=False)}


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise _misfit(f"{path.name} is no record: {str(error)[:160]}", path) from None


def _misfit(what: str, path: str | Path) -> IntegrityError:
    return IntegrityError(what, where=str(path), do="Delete it: the workflow makes it again")


def all_phases(_: Run) -> tuple[str, ...]:
    """Return the six phases and the run."""
    return (*PHASES, "run")
