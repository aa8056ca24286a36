"""The values of two cells by metric, paired by the rounds in which both had their turn."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.analyse import records
from pocketvlm.analyse.figures.reasons import merged, template
from pocketvlm.analyse.metrics import Metric
from pocketvlm.analyse.raw import Floats
from pocketvlm.analyse.variation import UNSTEADY
from pocketvlm.provenance import read_json

COMPARED = (
    "duration",
    "time_to_first_token",
    "tokens_per_second",
    "inter_token_latency",
    "workload_cpu",
    "rss_peak",
    "power",
    "energy",
)
"""Prefixes of the metrics of which a ratio means something; what is asked for by name is compared besides."""

_NO_RATIO = "not above 0, so that the metric has no ratio"

Place = tuple[str, int]


@dataclass(frozen=True)
class Sides:
    """One metric of two cells.

    Attributes:
        phase, metric, unit: which; no unit where no run has it.
        lower_is_better: whether less is better; None where neither is.
        a, b: positive values; of pairs shape (pairs,) each, in the order of time.
        interleaved: whether they are pairs: made in turns, in one round of one block.
        planned: pairs, or runs of each side, that there are.
        lost: why fewer are compared; empty when none is lost.
    """

    phase: str
    metric: str
    unit: str
    lower_is_better: bool | None
    a: Floats
    b: Floats
    interleaved: bool
    planned: int
    lost: str = ""


@dataclass(frozen=True)
class Runs:
    """The measured runs of an experiment.

    Attributes:
        places: by cell and place (block, round) its run.
        positions: the place of each run in its block.
        rows: by run its judged metrics by phase and metric.
        answers: by run text and sha256 of the answer.
        devices: the device of each cell.
        unmeasured: why a cell has no runs, by cell.
    """

    places: Mapping[str, Mapping[Place, str]]
    positions: Mapping[str, int]
    rows: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]]
    answers: Mapping[str, tuple[str, str]]
    devices: Mapping[str, str]
    unmeasured: Mapping[str, str]


def read(
    runs: str | Path,
    blocks: Iterable[str | Path],
    answers: Iterable[str | Path],
    cells: Sequence[Mapping[str, Any]],
    wanted: Iterable[str],
) -> Runs:
    """Read the runs of the cells that are compared.

    Args:
        runs: `tables/runs.parquet`.
        blocks: `blocks/<device>.json` of every device.
        answers: `records/<device>/answers.parquet` of every device.
        cells: those of `cells.json`.
        wanted: ids of the cells to compare.
    """
    chosen = set(wanted)
    places: dict[str, dict[Place, str]] = {cell: {} for cell in chosen}
    positions: dict[str, int] = {}
    unmeasured = {str(cell["cell"]): str(cell["unavailable"]) for cell in cells if cell.get("unavailable")}
    for path in blocks:
        block = read_json(path)
        unmeasured |= block.get("unmeasured", {})
        for entry in block["runs"]:
            if entry["role"] == "measured" and entry["cell"] in chosen:
                places[entry["cell"]][entry["block"], entry["round"]] = entry["run"]
                positions[entry["run"]] = entry["position"]
    table = records.read(runs, "runs").select(
        ["cell", "run", "phase", "metric", "value", "unit", "lower_is_better", "reason", "gate"]
    )
    rows: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = defaultdict(dict)
    for row in table.to_pylist():
        if row["cell"] in chosen:
            rows[row["run"]][row["phase"], row["metric"]] = row
    texts = {
        row["run"]: (row["text"], row["sha256"])
        for path in answers
        for row in records.read(path, "answers").to_pylist()
        if row["run"] in positions
    }
    devices = {str(cell["cell"]): str(cell["device"]) for cell in cells}
    return Runs(places, positions, rows, texts, devices, unmeasured)


@dataclass(frozen=True)
class Met:
    """The runs of two cells, put beside each other.

    Attributes:
        pairs: runs of a and b of one round each; of two devices runs that have nothing to do with each other.
        interleaved: whether they were made in turns.
        planned: pairs that the runs of the side that has more would give.
        alone: why runs have no partner, or there are none; empty when there is nothing to say.
    """

    pairs: Sequence[tuple[str, str]]
    interleaved: bool
    planned: int
    alone: str


def meet(runs: Runs, a: str, b: str) -> Met:
    """Put the runs of two cells beside each other; of two devices by their order alone."""
    mine, theirs = runs.places[a], runs.places[b]
    planned = max(len(mine), len(theirs))
    absent = [f"{cell}: {_why_unmeasured(runs, cell)}" for cell in (a, b) if not runs.places[cell]]
    if absent:
        return Met([], True, planned, "; ".join(absent))
    if runs.devices[a] != runs.devices[b]:
        both = zip((mine[place] for place in sorted(mine)), (theirs[place] for place in sorted(theirs)))  # noqa: B905
        return Met(list(both), False, planned, "")
    shared = sorted(
        set(mine) & set(theirs), key=lambda place: (place[0], min(_position(runs, mine, theirs, place)))
    )
    alone = planned - len(shared)
    why = (
        f"{alone} of {planned} runs of a side have no run of the other in the same round of the same block: "
        "they were not made in turns; `snakemake --cores 4 remeasure` makes all of them anew, in turns"
        if alone
        else ""
    )
    return Met([(mine[place], theirs[place]) for place in shared], True, planned, why)


def _position(
    runs: Runs, mine: Mapping[Place, str], theirs: Mapping[Place, str], place: Place
) -> tuple[int, int]:
    return runs.positions[mine[place]], runs.positions[theirs[place]]


def _why_unmeasured(runs: Runs, cell: str) -> str:
    return runs.unmeasured.get(cell) or "no run of it is in its block"


def a_first(runs: Runs, met: Met) -> int:
    """Return in how many pairs a had its turn before b."""
    return sum(runs.positions[a] < runs.positions[b] for a, b in met.pairs) if met.interleaved else 0


def sides(runs: Runs, met: Met, asked: Iterable[tuple[str, str]]) -> list[Sides]:
    """Return the values of every metric that is comparable, those asked for first.

    Args:
        runs, met: the runs, and how they meet.
        asked: phase and metric that must be among them, though no run has it.
    """
    first = list(dict.fromkeys(asked))
    found: set[tuple[str, str]] = set()
    for pair in met.pairs:
        for run in pair:
            found |= {
                (phase, metric)
                for (phase, metric), row in runs.rows[run].items()
                if metric.startswith(COMPARED)
                and row["lower_is_better"] is not None
                and row["value"] is not None
            }
    return [_side(runs, met, phase, metric) for phase, metric in (*first, *sorted(found - set(first)))]


def _side(runs: Runs, met: Met, phase: str, metric: str) -> Sides:
    kept: tuple[list[float], list[float]] = ([], [])
    lost: Counter[str] = Counter()
    unit = ""
    for pair in met.pairs:
        values = []
        for name, run in zip("ab", pair, strict=True):
            row = runs.rows[run].get((phase, metric))
            unit = row["unit"] if row else unit
            problem = _unusable(row, paired=met.interleaved)
            if problem:
                lost[f"{name}: {problem}"] += 1
            elif row:
                values.append(float(row["value"]))
                if not met.interleaved:
                    kept["ab".index(name)].append(float(row["value"]))
        if met.interleaved and len(values) == 2:
            kept[0].append(values[0])
            kept[1].append(values[1])
    if any(reason.endswith(_NO_RATIO) for reason in lost):
        # Whoever keeps those above 0 alone compares a selection by the very value that is compared.
        kept = ([], [])
    lower = Metric(phase, metric, None, unit, "").lower_is_better
    why = "; ".join([part for part in (met.alone, _counted(lost, len(met.pairs))) if part])
    a, b = (np.array(values, dtype=np.float64) for values in kept)
    return Sides(phase, metric, unit, lower, a, b, met.interleaved, met.planned, why)


def _unusable(row: Mapping[str, Any] | None, *, paired: bool) -> str:
    """Return why a metric of a run cannot be compared; empty when it can.

    That the runs of a cell differ much withholds its median, and no pair: what they have in common cancels.
    """
    if row is None:
        return "the run has no such metric"
    if row["value"] is None:
        return str(row["reason"] or "NA")
    clauses = row["gate"].split("; ") if row["gate"] else []
    closed = [clause for clause in clauses if not (paired and clause.startswith(UNSTEADY))]
    if closed:
        return f"withheld: {'; '.join(closed)}"
    return "" if row["value"] > 0 else _NO_RATIO


def _counted(lost: Mapping[str, int], total: int) -> str:
    """Return reasons with how many runs each has; those that differ in their numbers only are one."""
    kinds: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for text, count in lost.items():
        kinds[template(text)].append(text)
        counts[template(text)] += count
    return "; ".join(
        f"{count} of {total} runs of {merged(kinds[kind])}" for kind, count in counts.most_common()
    )


def unequal_work(runs: Runs, met: Met) -> list[tuple[str, float, float]]:
    """Return the phases in which the sides had different numbers of tokens: phase, median of a, of b."""
    counts: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for pair in met.pairs:
        for side, run in enumerate(pair):
            for (phase, metric), row in runs.rows[run].items():
                if metric == "tokens" and row["value"] is not None:
                    counts[phase][side].append(float(row["value"]))
    medians = {
        phase: (statistics.median(of_a), statistics.median(of_b))
        for phase, (of_a, of_b) in counts.items()
        if of_a and of_b
    }
    return [(phase, a, b) for phase, (a, b) in sorted(medians.items()) if a != b]
