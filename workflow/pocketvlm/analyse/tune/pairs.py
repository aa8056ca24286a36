"""How much faster a candidate is than the defaults, by runs that were made in pairs.

Estimate and interval are those of Hodges and Lehmann with the Wilcoxon signed-rank distribution (Hollander,
Wolfe and Chicken, *Nonparametric Statistical Methods*, 3rd edition, 2014, chapter 3.2 and 3.3). The order
within a round is drawn, so of two equal settings either is as likely the faster one of a pair, however the
device drifts: the interval is exact, whatever the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pocketvlm.analyse.ranks import left_out


@dataclass(frozen=True)
class Ratio:
    """A value of the defaults divided by that of a candidate: above 1 the candidate takes less.

    Attributes:
        n: pairs.
        value: the Hodges-Lehmann estimate over the pairs' ratios.
        low, high: its interval; None with too few pairs for the confidence.
        of_medians: median of the defaults divided by the median of the candidate, for comparison.
    """

    n: int
    value: float
    low: float | None
    high: float | None
    of_medians: float


def ratio(defaults: Sequence[float], candidate: Sequence[float], *, confidence: float) -> Ratio:
    """Return by how much a candidate takes less than the defaults.

    Args:
        defaults, candidate: positive values of runs of the same round, shape (n,) each, n >= 1.
        confidence: of the two-sided interval, between 0 and 1.
    """
    return _ratio(tuple(defaults), tuple(candidate), confidence)


# A search looks at its rungs again before every round.
@lru_cache(maxsize=4096)
def _ratio(defaults: tuple[float, ...], candidate: tuple[float, ...], confidence: float) -> Ratio:
    logs = np.log(np.asarray(defaults, dtype=float) / np.asarray(candidate, dtype=float))
    n = int(logs.size)
    upper = np.triu_indices(n)
    walsh = np.sort((logs[:, None] + logs[None, :])[upper] / 2)
    beyond = left_out(n, (1 - confidence) / 2)
    low, high = (None, None) if beyond == 0 else (_exp(walsh[beyond - 1]), _exp(walsh[-beyond]))
    return Ratio(
        n=n,
        value=_exp(np.median(walsh)),
        low=low,
        high=high,
        of_medians=float(np.median(defaults) / np.median(candidate)),
    )


def least_pairs(confidence: float, intervals: int = 1) -> int:
    """Return the fewest pairs with which an interval can exclude 1, of several that hold together.

    All n pairs point one way with probability 2^(1-n).
    """
    return max(1, math.ceil(1 - math.log2((1 - confidence) / intervals)))


def together(confidence: float, intervals: int) -> float:
    """Return the confidence of each of several intervals that together have `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, intervals)


def _exp(value: float) -> float:
    return float(math.exp(value))
