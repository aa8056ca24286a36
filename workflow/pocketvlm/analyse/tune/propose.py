"""Which untried candidate should be fast, by what the values of its axes did to others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pocketvlm.config.space import Candidate

_LEAST_KNOWN = 3
"""Fewer measured candidates say nothing about others."""

_SHRINKING = 0.1


def proposals(
    candidates: Mapping[str, Candidate],
    speedups: Mapping[str, float],
    bad: Collection[str],
    tried: Collection[str],
    best: float | None,
) -> tuple[list[str], bool]:
    """Return the untried candidates, the fastest by a sum of effects first, and whether it beats all so far.

    The logarithm of the speedup is taken as a sum of one effect for each value of each axis, estimated by
    least squares with a little shrinking from all that were measured; the defaults are no part of it. What is
    bad counts as half as fast as the slowest: what it has in common with others is to be avoided.

    Args:
        candidates: all that may be tried, by name.
        speedups: against the defaults, of those that were measured; positive.
        bad: those that failed, exceeded a limit or were withheld.
        tried: those that were given a chance already.
        best: the greatest speedup of those that are still in; None where nobody is.
    """
    known = {name: math.log(value) for name, value in speedups.items()}
    known |= dict.fromkeys(bad, min(known.values(), default=0.0) - math.log(2))
    untried = [name for name in candidates if name not in tried]
    if len(known) < _LEAST_KNOWN or not untried:
        return untried, False
    place = {
        part: column
        for column, part in enumerate(sorted({p for c in candidates.values() for p in _parts(c)}))
    }

    def rows(names: Sequence[str]) -> NDArray[np.float64]:
        table = np.zeros((len(names), len(place)))
        for row, name in enumerate(names):
            table[row, [place[part] for part in _parts(candidates[name])]] = 1.0
        return table

    table, logs = rows(list(known)), np.array(list(known.values()))
    middle = float(logs.mean())
    shrunk = table.T @ table + _SHRINKING * np.eye(len(place))
    predicted = rows(untried) @ np.linalg.solve(shrunk, table.T @ (logs - middle)) + middle
    order = np.argsort(-predicted, kind="stable")
    ahead = best is not None and predicted[order[0]] > math.log(best)
    return [untried[index] for index in order], bool(ahead)


def _parts(candidate: Candidate) -> list[str]:
    return [f"{axis}={value}" for axis, value in candidate.axes.items()]
