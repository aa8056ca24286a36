"""How many warm-ups a cell gets: a fixed number, or as many as its own times ask for, up to a limit.

The first runs of a cell are slower or faster than those that follow: pages come from storage, clocks and
temperatures have not settled. A number that suits one phone wastes time on another. So the warm-ups of a cell
go on until its last few took the same time: until the coefficient of variation of their durations (sample
standard deviation / mean) is no more than what the experiment allows.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WarmUps:
    """What an experiment says about its warm-ups.

    Attributes:
        least, most: how many a cell gets at the least and at most.
        cv_percent: what the coefficient of variation of the last `window` must not exceed, in percent; None:
            `most` in any case.
        window: how many of the last warm-ups are looked at.
    """

    least: int
    most: int
    cv_percent: float | None = None
    window: int = 2


def warm_ups(given: int | Mapping[str, Any]) -> WarmUps:
    """Return what `warmups` of an experiment means: a number, or `least`, `most`, `cv_percent`, `window`."""
    return WarmUps(given, given) if isinstance(given, int) else WarmUps(**given)


class Warming:
    """The warm-ups of a block as they are made."""

    def __init__(self, wanted: WarmUps) -> None:
        self.wanted = wanted
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, cell: str, seconds: float) -> None:
        """Note how long a warm-up of a cell took."""
        self._seconds[cell].append(seconds)

    def enough(self, cell: str) -> bool:
        """Whether a cell needs no further warm-up."""
        made, wanted = self._seconds[cell], self.wanted
        if len(made) >= wanted.most:
            return True
        return len(made) >= wanted.least and self._steady(cell)

    def record(self, cell: str) -> dict[str, Any]:
        """Return what `meta.json` of a cell's measured run says of its warm-ups; empty for a fixed number."""
        if self.wanted.cv_percent is None:
            return {}
        cv = variation(self._seconds[cell][-self.wanted.window :], self.wanted.window)
        made = {"made": len(self._seconds[cell]), "cv_percent": None if cv is None else round(cv, 3)}
        return {"warmups": {**made, "steady": self._steady(cell)}}

    def _steady(self, cell: str) -> bool:
        cv = variation(self._seconds[cell][-self.wanted.window :], self.wanted.window)
        return self.wanted.cv_percent is not None and cv is not None and cv <= self.wanted.cv_percent


def variation(values: Sequence[float], least: int = 2) -> float | None:
    """Return the coefficient of variation in percent; None for fewer than `least` values or a mean of 0."""
    if len(values) < max(2, least) or not (mean := statistics.fmean(values)):
        return None
    return 100.0 * statistics.stdev(values) / abs(mean)
