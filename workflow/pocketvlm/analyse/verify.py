"""Recompute hashes and every table from the raw runs, and say what differs."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from pocketvlm.analyse import records
from pocketvlm.analyse.bounds import compute_bounds
from pocketvlm.analyse.gates import judge_file
from pocketvlm.analyse.ledger import write_ledger
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.raw import check_run, run_folder
from pocketvlm.analyse.tables import aggregate
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import read_json


@dataclass(frozen=True)
class Difference:
    """A file that is not what the raw runs and the configuration make it."""

    path: str
    what: str


def verify(
    experiment: str,
    results: str | Path,
    cells: str | Path,
    *,
    thresholds: Mapping[str, float],
    bootstrap: Mapping[str, Any],
    bounds: Mapping[str, Any],
    ledger: Mapping[str, Any] | None = None,
    devices: Sequence[str] | None = None,
) -> list[Difference]:
    """Recompute an experiment from its raw runs in a temporary folder and compare.

    Args:
        experiment: its name.
        results: the results folder, with `raw/`, `devices/` and the experiment's own folder.
        cells: `cells.json` of the experiment.
        thresholds: `analysis.gates` of the configuration.
        bootstrap: `analysis.bootstrap` (resamples, confidence, seed).
        bounds: `margin_percent`, and `made_of`: by device what each cell is made of (see `compute_bounds`).
        ledger: what `write_ledger` takes besides files of the results; without it there is no ledger.
        devices: those of the experiment; all that have an index when None.

    Returns:
        what differs, empty when everything is as the raw runs make it.
    """
    root = Path(results)
    own = root / experiment
    blocks = sorted((own / "blocks").glob("*.json"))
    if devices is not None:
        blocks = [own / "blocks" / f"{device}.json" for device in devices]
    if not blocks:
        return [Difference(str(own / "blocks"), "there is no index of a block")]
    found: list[Difference] = []
    for block in blocks:
        found += _raw(block, root / "raw")
    if found:
        return found  # tables made from damaged runs would only repeat it
    with tempfile.TemporaryDirectory(dir=own, prefix=".verify-") as name:
        again = Path(name)
        try:
            for block in blocks:
                identity = root / "devices" / block.stem / "identity.json"
                if not identity.is_file():
                    identity = own / "absent" / f"{block.stem}.json"
                parse_block(block, root / "raw", identity, cells, again / "records" / block.stem)
                metrics = again / "records" / block.stem / "metrics.parquet"
                limits = again / "bounds" / f"{block.stem}.csv"
                compute_bounds(
                    cells=cells,
                    device=block.stem,
                    metrics=metrics,
                    block=block,
                    peaks=root / "devices" / block.stem / "peaks.json",
                    made_of=bounds["made_of"].get(block.stem, {}),
                    margin_percent=bounds["margin_percent"],
                    destination=limits,
                )
                judged = again / "judged" / f"{block.stem}.parquet"
                judge_file(metrics, thresholds, judged, bounds=limits, block=block)
            judged_files = [again / "judged" / f"{block.stem}.parquet" for block in blocks]
            aggregate(judged_files, blocks, cells, again / "tables", **bootstrap)
            if ledger is not None:
                write_ledger(
                    cells=cells,
                    summary=again / "tables/cells.csv",
                    runs=again / "tables/runs.parquet",
                    bounds=[again / "bounds" / f"{block.stem}.csv" for block in blocks],
                    peaks=[root / "devices" / block.stem / "peaks.json" for block in blocks],
                    destination=again / "tables/ledger.csv",
                    **ledger,
                )
        except (PocketvlmError, OSError) as error:
            return [Difference(str(own), f"cannot be made again: {error}")]
        for block in blocks:
            for record in records.RECORDS:
                place = Path("records") / block.stem / f"{record}.parquet"
                found += _compare(own / place, again / place, record)
            place = Path("bounds") / f"{block.stem}.csv"
            found += compare_csv(own / place, again / place)
            place = Path("judged") / f"{block.stem}.parquet"
            found += _compare(own / place, again / place, "judged")
        found += _compare(own / "tables/runs.parquet", again / "tables/runs.parquet", "runs")
        found += compare_csv(own / "tables/cells.csv", again / "tables/cells.csv")
        if ledger is not None:
            found += compare_csv(own / "tables/ledger.csv", again / "tables/ledger.csv")
    return found


def _raw(block: Path, raw_root: Path) -> list[Difference]:
    try:
        entries = read_json(block)["runs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Difference(str(block), f"is no index of a block: {type(error).__name__}")]
    found = []
    for entry in entries:
        try:
            folder = run_folder(raw_root, entry["run"])
            meta = check_run(folder, entry["meta_sha256"])
            extra = {path.name for path in folder.iterdir()} - {"meta.json", *meta["files"]}
            if extra:
                found.append(Difference(str(folder), f"holds files that were not recorded: {sorted(extra)}"))
        except PocketvlmError as error:
            found.append(Difference(error.where or str(block), error.what))
    return found


def _compare(old: Path, new: Path, record: str) -> list[Difference]:
    if not old.is_file():
        return [Difference(str(old), "is missing")]
    try:
        before = records.read(old, record)
    except PocketvlmError as error:
        return [Difference(str(old), error.what)]
    after = records.read(new, record)
    if before.equals(after):
        return []
    if before.num_rows != after.num_rows:
        what = f"has {before.num_rows} rows, the raw runs give {after.num_rows}"
        return [Difference(str(old), what)]
    return [Difference(str(old), what) for what in _columns(before, after)]


def _columns(before: pa.Table, after: pa.Table) -> list[str]:
    found = []
    for name in before.schema.names:
        old, new = before.column(name).to_pylist(), after.column(name).to_pylist()
        rows = [number for number, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
        if rows:
            at = rows[0]
            found.append(
                f"column {name}: {len(rows)} values differ, first in row {at}: {old[at]!r}, "
                f"the raw runs give {new[at]!r}"
            )
    return found


def compare_csv(old: Path, new: Path) -> list[Difference]:
    """Return how a table of text differs from the one that the raw runs give now."""
    if not old.is_file():
        return [Difference(str(old), "is missing")]
    if old.read_bytes() == new.read_bytes():
        return []
    with old.open(newline="", errors="replace") as a, new.open(newline="") as b:
        before, after = list(csv.reader(a)), list(csv.reader(b))
    if len(before) != len(after):
        return [Difference(str(old), f"has {len(before)} lines, the raw runs give {len(after)}")]
    rows = [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
    where = f"first in line {rows[0]}" if rows else "in its line endings"
    return [Difference(str(old), f"{len(rows)} lines differ from what the raw runs give, {where}")]
