"""The Pareto front: candidates that no other beats in speed, energy and memory at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

STEP = 0.01
"""Relative difference below which two values count as equal: noise must not put everything on the front."""


def front(points: Sequence[Mapping[str, float | None]]) -> list[bool | None]:
    """Say which points are on the front; None where that cannot be told.

    A point is off it when another is at least as good in everything, better in something, and better on the
    whole (the product of all): else three that differ by little could each be beaten by the next. What no
    point has is left out of the comparison; of a point that lacks what others have nobody knows.

    Args:
        points: values by quantity, less is better, positive; None where it is not known.
    """
    quantities = sorted({name for point in points for name, value in point.items() if value is not None})
    logs = [_logs(point, quantities) if quantities else None for point in points]
    return [
        None if mine is None else not any(other is not None and _beats(other, mine) for other in logs)
        for mine in logs
    ]


def _logs(point: Mapping[str, float | None], quantities: Sequence[str]) -> tuple[float, ...] | None:
    values = [point.get(name) for name in quantities]
    known = [math.log(value) for value in values if value is not None and value > 0]
    return tuple(known) if len(known) == len(quantities) else None


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Say whether one is nowhere worse than another and somewhere better, by more than STEP, and in sum."""
    behind = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
    step = math.log1p(STEP)
    return max(behind) <= step and min(behind) < -step and sum(behind) < 0
