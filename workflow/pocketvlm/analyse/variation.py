"""Whether the runs of a cell are runs of the same thing: by how much they differ."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MIN_RUNS = 3
"""Fewer runs say nothing about how much they differ."""

UNSTEADY = "the runs differ by"
"""How the gate's clause begins: no number stands for all runs, though pairs of them may be compared."""

JUDGED = (("run", "duration"), ("decode", "tokens_per_second"))
"""Phase and metric by which the runs of a cell are compared."""


def unsteady(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], cells: Mapping[str, str], most_percent: float
) -> dict[str, tuple[float, str, int]]:
    """Return the cells whose runs differ by more than is allowed.

    Args:
        runs: the judged metrics by run. Numbers that a gate withholds already are left out.
        cells: the cell of each measured run.
        most_percent: the coefficient of variation (sample standard deviation / mean) that is allowed.

    Returns:
        by cell the coefficient of variation in percent, of what it is, and over how many runs; the greater
        where both metrics exceed it.
    """
    values: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, cell in cells.items():
        for row in runs.get(run, ()):
            which = (row["phase"], row["metric"])
            if which in JUDGED and row["value"] is not None and not row["gate"]:
                values[cell][which].append(row["value"])
    found: dict[str, tuple[float, str, int]] = {}
    for cell, metrics in values.items():
        told = [
            (cv, f"{metric} of {phase}", len(metrics[phase, metric]))
            for phase, metric in JUDGED
            if (cv := coefficient(metrics[phase, metric])) is not None and cv > most_percent
        ]
        if told:
            found[cell] = max(told)
    return found


def coefficient(values: Sequence[float]) -> float | None:
    """Return the coefficient of variation in percent; None for fewer than MIN_RUNS values or a mean of 0."""
    if len(values) < MIN_RUNS or not (mean := statistics.fmean(values)):
        return None
    return 100.0 * statistics.stdev(values) / abs(mean)
