"""The soak's tables: a row a run, a row a quantity of the whole, a row a second."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pocketvlm.analyse.raw import REINDEX, read_object, run_folder
from pocketvlm.analyse.soak.runs import SoakRun, by_second, read_soak_run, series_of
from pocketvlm.analyse.soak.summary import Quantity, Wanted, summarise
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file, read_json

log = logging.getLogger("pocketvlm")

CELL = ("experiment", "cell", "device", "device_kind", "weights_kind", "soak")
RUN = ("run", "position", "start_s", "end_s", "gap_s", "tokens_per_second", "power_w", "energy_j")
LAST = ("clock_source", "reason")
SUMMARY = (*CELL, "quantity", "value", "unit", "n", "ci_low", "ci_high", "note")
SERIES = (*CELL, "t_s", "quantity", "component", "value", "unit")

Row = dict[str, Any]


def tabulate(
    indexes: Iterable[str | Path],
    identities: Iterable[str | Path],
    cells: str | Path,
    raw_root: str | Path,
    *,
    soak: Mapping[str, Any],
    gates: Mapping[str, float],
    bootstrap: Mapping[str, Any],
    runs: Path,
    summary: Path,
    series: Path,
) -> None:
    """Write `soak.csv`, `soak_summary.csv` and `soak_series.csv`; equal input gives equal bytes.

    Args:
        indexes: `soak/<device>.json` of each device.
        identities: `identity.json` of each device, in the same order.
        cells: `cells.json`.
        raw_root: `results/raw`.
        soak: duration_s, busy_percent, first_s, throttle_percent.
        gates, bootstrap: thresholds and statistics of the configuration.
        runs, summary, series: the files to write.

    Raises:
        IntegrityError: a raw run is not what the index says, or the index names an unknown cell.
        WorkloadError: a run's output cannot be understood.
    """
    tables = Tables(Wanted(**soak), bootstrap)
    known = {cell["cell"]: cell for cell in read_json(cells)["cells"]}
    for index_path, identity_path in zip(indexes, identities, strict=True):
        index, identity = read_object(Path(index_path)), read_object(Path(identity_path))
        experiment = index["experiment"]
        for entry in index["soaks"]:
            cell = _cell(known, entry["cell"], index_path)
            found: list[SoakRun] = []
            parts = []
            for one in entry["runs"]:
                folder = run_folder(Path(raw_root), one["run"])
                read = read_soak_run(
                    folder,
                    one["meta_sha256"],
                    cell["adapter"],
                    identity,
                    gates,
                    cell["backend"],
                    cell.get("statistics"),
                )
                found.append(read.run)
                parts.append(series_of(read, found[0].start_us))
            tables.add(experiment, cell, entry["soak"], found, parts, len(entry["cut_short"]))
            log.info("a soak of %d runs with %s", len(found), entry["cell"])
        for name, why in index["unmeasured"].items():
            tables.add_unmeasured(experiment, _cell(known, name, index_path), why)
    tables.write(runs, summary, series)


class Tables:
    """The three tables while they are gathered.

    Args:
        wanted: the soak.
        bootstrap: resamples, confidence and seed.
    """

    def __init__(self, wanted: Wanted, bootstrap: Mapping[str, Any]) -> None:
        self._wanted, self._bootstrap = wanted, bootstrap
        self._runs: list[Row] = []
        self._summary: list[Row] = []
        self._series: list[Row] = []

    def add(
        self,
        experiment: str,
        cell: Row,
        soak: str,
        runs: Sequence[SoakRun],
        parts: Sequence[pd.DataFrame],
        cut_short: int = 0,
    ) -> None:
        """Add one soak: its runs in order, what `series_of` gives of each, and how many were cut short."""
        common = _common(experiment, cell, soak)
        quantities = summarise(runs, self._wanted, self._bootstrap, name=cell["cell"], cut_short=cut_short)
        self._runs += [common | row for row in rows_of(runs)]
        self._summary += [common | dict(quantity.__dict__) for quantity in quantities]
        self._series += [common | row for row in by_second(parts)]

    def add_unmeasured(self, experiment: str, cell: Row, why: str) -> None:
        """Add a cell that was not soaked, with the reason."""
        nothing = Quantity("sustained_ratio", None, "1", f"not soaked: {why}")
        self._summary.append(_common(experiment, cell, "") | dict(nothing.__dict__))

    def write(self, runs: Path, summary: Path, series: Path) -> None:
        """Write `soak.csv`, `soak_summary.csv` and `soak_series.csv`."""
        fixed = {*CELL, *RUN, *LAST}
        varying = sorted({name for row in self._runs for name in row} - fixed, key=_place)
        _write(runs, (*CELL, *RUN, *varying, *LAST), self._runs)
        _write(summary, SUMMARY, self._summary)
        _write(series, SERIES, self._series)


def rows_of(runs: Sequence[SoakRun]) -> list[Row]:
    """Return a row a run of one soak; `reason` names why what is empty is so."""
    begin = runs[0].start_us
    rows: list[Row] = []
    for position, run in enumerate(runs):
        named = (("tokens_per_second", run.speed), ("power_w", run.power), ("energy_j", run.energy))
        reasons = [f"{name}: {value.reason}" for name, value in named if value.value is None]
        if run.why_no_clock:
            reasons.append(f"clock_mhz: {run.why_no_clock}")
        if run.why_no_temperature:
            reasons.append(f"temperature: {run.why_no_temperature}")
        before = runs[position - 1] if position else None
        rows.append(
            {
                "run": run.name,
                "position": position,
                "start_s": (run.start_us - begin) / 1e6,
                "end_s": (run.end_us - begin) / 1e6,
                "gap_s": None if before is None else (run.start_us - before.end_us) / 1e6,
                **{name: value.value for name, value in named},
                **{f"clock_mhz.{name}": value for name, value in run.clocks.items()},
                **{f"temperature_start.{name}": value for name, value in run.temperature_start.items()},
                **{f"temperature_end.{name}": value for name, value in run.temperature_end.items()},
                **{f"temperature_max.{name}": value for name, value in run.temperature_max.items()},
                "clock_source": run.clock_source,
                "reason": "; ".join(reasons),
            }
        )
    return rows


def _place(column: str) -> tuple[int, str]:
    """Order columns that depend on the device: clocks, then temperatures, each by name."""
    prefixes = ("clock_mhz.", "temperature_start.", "temperature_end.", "temperature_max.")
    return next(place for place, prefix in enumerate(prefixes) if column.startswith(prefix)), column


def _cell(known: Mapping[str, Row], name: str, index: str | Path) -> Row:
    if name not in known:
        raise IntegrityError(
            f"the index names the cell {name!r}, which is not in the experiment",
            where=str(index),
            do=REINDEX.replace("measure_block", "measure_soak"),
        )
    return known[name]


def _common(experiment: str, cell: Row, soak: str) -> Row:
    names = ("cell", "device", "device_kind", "weights_kind")
    return {"experiment": experiment, **{name: cell[name] for name in names}, "soak": soak}


def _text(value: Any) -> Any:
    # Nine digits hold every number here to a microsecond or a millionth; more would be noise.
    return f"{value:.9g}" if isinstance(value, float) else value


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)
