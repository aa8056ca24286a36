"""The Pareto front: candidates that no other beats in speed, energy and memory at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

STEP = 0.01
"""Relative difference below which two values count as equal: noise must not put everything on the front."""


def front(points: Sequence[Mapping[str, float | None]]) -> list[bool | None]:
    """Say which points are on the front; None where that cannot be told.

    A point is off it when another is at least as good in everything and better in something. What no point
    has is left out of the comparison; of a point that lacks what others have nobody knows.

    Args:
        points: values by quantity, less is better, positive; None where it is not known.
    """
    quantities = sorted({name for point in points for name, value in point.items() if value is not None})
    steps = [_steps(point, quantities) if quantities else None for point in points]
    return [
        None if mine is None else not any(other is not None and _beats(other, mine) for other in steps)
        for mine in steps
    ]


def _steps(point: Mapping[str, float | None], quantities: Sequence[str]) -> tuple[int, ...] | None:
    found = []
    for name in quantities:
        value = point.get(name)
        if value is None or value <= 0:
            return None
        found.append(round(math.log(value) / math.log1p(STEP)))
    return tuple(found)


def _beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one != other and all(mine <= yours for mine, yours in zip(one, other, strict=True))
