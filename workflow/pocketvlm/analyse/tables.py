"""Aggregate: the judged metrics of all devices become `runs.parquet` and `cells.csv`."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.analyse import records
from pocketvlm.analyse.stats import summarise
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file, read_json

Row = dict[str, Any]
# A number of its own, no part of a name (`policy0`, `package-0`, `Q4_0`), a path or a version.
_NUMBER = re.compile(r"(?<![\w./-])\d+(?:\.\d+)?(?![\w/-]|\.\d)")

# What a cell without runs has rows of: what every framework has, in the order of a run.
_UNMEASURED = (
    *((phase, "duration", "ms") for phase in ("load", "text_prefill", "image_encode", "image_prefill")),
    ("decode", "duration", "ms"),
    ("decode", "tokens_per_second", "1/s"),
    ("run", "duration", "ms"),
)


def aggregate(
    judged: Sequence[str | Path],
    blocks: Sequence[str | Path],
    cells: str | Path,
    destination: str | Path,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Write `runs.parquet` and `cells.csv` of an experiment into a folder.

    Args:
        judged: `judged/<device>.parquet` of every device.
        blocks: `blocks/<device>.json` of the same devices, in the same order.
        cells: `cells.json`.
        destination: the folder to write to.
        resamples, confidence, seed: of the bootstrap interval on the median.

    Raises:
        IntegrityError: a record, an index and the experiment do not fit together.
    """
    study = read_json(cells)
    by_cell = {cell["cell"]: cell for cell in study["cells"]}
    rows: list[Row] = []
    reasons: dict[str, str] = {}
    for record, path in zip(judged, blocks, strict=True):
        block = read_json(path)
        rows += _joined(record, block, by_cell, study["experiment"])
        reasons |= block.get("unmeasured", {})
    order = {cell: number for number, cell in enumerate(by_cell)}
    rows.sort(key=lambda r: (order[r["cell"]], r["round"], r["position"], r["run"], r["phase"], r["metric"]))
    folder = Path(destination)
    records.write(folder / "runs.parquet", "runs", records.table("runs", rows))
    summaries = _summaries(rows, resamples=resamples, confidence=confidence, seed=seed)
    present = {row["cell"] for row in rows}
    for name, cell in by_cell.items():
        if name not in present:
            why = reasons.get(name) or cell.get("unavailable") or "no run of it is in its block"
            summaries += _unmeasured(study["experiment"], cell, why)
    summaries.sort(key=lambda row: order[row["cell"]])
    with atomic_file(folder / "cells.csv") as stream:
        writer = csv.DictWriter(stream, records.CELLS_CSV, lineterminator="\n")
        writer.writeheader()
        writer.writerows(summaries)


def _joined(
    record: str | Path, block: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]], experiment: str
) -> list[Row]:
    """Return the judged metrics of the measured runs, with their place in the plan and their cell."""
    entries = {entry["run"]: entry for entry in block["runs"]}
    rows: list[Row] = []
    seen = set()
    for row in records.read(record, "judged").to_pylist():
        entry = entries.get(row["run"])
        if entry is None:
            raise _misfit(f"run {row['run']} is in no block", record)
        seen.add(row["run"])
        if entry["role"] != "measured":
            continue
        cell = cells.get(entry["cell"])
        if cell is None:
            raise _misfit(f"cell {entry['cell']!r} is not in the experiment", record)
        rows.append(
            {
                "experiment": experiment,
                "cell": entry["cell"],
                **{name: cell[name] for name in records.CELL_COLUMNS},
                "key": row["run"].split("/")[0],
                "round": entry["round"],
                "position": entry["position"],
                **row,
            }
        )
    lost = sorted(set(entries) - seen)
    if lost:
        raise _misfit(f"{len(lost)} runs of the block have no metrics, such as {lost[0]}", record)
    return rows


def _misfit(what: str, path: str | Path) -> IntegrityError:
    return IntegrityError(what, where=str(path), do="delete the record: the workflow makes it again")


def _summaries(rows: Sequence[Row], *, resamples: int, confidence: float, seed: int) -> list[Row]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["cell"], row["phase"], row["metric"]].append(row)
    found = []
    for (cell, phase, metric), group in groups.items():
        passed = [row["value"] for row in group if row["value"] is not None and not row["gate"]]
        summary = summarise(
            np.array(passed, dtype=np.float64),
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            name=f"{cell}|{phase}|{metric}",
        )
        first = group[0]
        found.append(
            {
                **{name: first[name] for name in ("experiment", "cell", *records.CELL_COLUMNS)},
                "phase": phase,
                "metric": metric,
                "unit": first["unit"],
                **{name: _text(value) for name, value in summary.__dict__.items()},
                "gate": _why(group),
            }
        )
    return found


def _unmeasured(experiment: str, cell: Mapping[str, Any], why: str) -> list[Row]:
    """Return the rows of a cell that was not measured: no number, and the reason in the place of a gate."""
    empty = dict.fromkeys(("mean", "std", "median", "p05", "p95", "ci_low", "ci_high"), "")
    return [
        {
            "experiment": experiment,
            "cell": cell["cell"],
            **{name: cell[name] for name in records.CELL_COLUMNS},
            "phase": phase,
            "metric": metric,
            "unit": unit,
            "n": "0",
            **empty,
            "gate": why,
        }
        for phase, metric, unit in _UNMEASURED
    ]


def _why(group: Sequence[Row]) -> str:
    """Return why runs are missing from a row: the reasons of NA and the gates, with how many runs each.

    Texts that differ in their numbers only are one, from the least to the greatest: `5 of 5 runs: the phase
    lasted 50.9 to 60 ms, 100 ms are needed`.
    """
    kinds: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in group:
        clauses = [row["reason"]] if row["value"] is None else row["gate"].split("; ") if row["gate"] else []
        for clause in clauses:
            kinds[tuple(_NUMBER.split(clause))].append(clause)
    found = sorted((_merged(texts), len(texts)) for texts in kinds.values())
    if len(found) == 1 and found[0][1] == len(group) and len(set(*kinds.values())) == 1:
        return found[0][0]
    return "; ".join(f"{count} of {len(group)} runs: {why}" for why, count in found)


def _merged(texts: Sequence[str]) -> str:
    """Return texts that differ in their numbers only as one: `least to greatest` where they do."""
    spans = []
    for numbers in zip(*(_NUMBER.findall(text) for text in texts), strict=True):
        low, high = min(numbers, key=float), max(numbers, key=float)
        spans.append(low if float(low) == float(high) else f"{low} to {high}")
    filled = iter(spans)
    return _NUMBER.sub(lambda _: next(filled), texts[0])


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
