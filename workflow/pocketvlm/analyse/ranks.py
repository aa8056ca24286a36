"""The difference of two samples by ranks: an estimate, its interval, a probability, an effect size.

Of pairs the Wilcoxon signed-rank test and the Hodges-Lehmann estimate (Hollander, Wolfe and Chicken,
*Nonparametric Statistical Methods*, 3rd edition, 2014, chapters 3.1 to 3.3); of two samples without pairs the
Wilcoxon rank-sum test and the median of all differences (chapter 4). Both hold whatever the noise looks like.
The order within a pair is drawn, so where nothing differs each sign is a fair coin, however the machine
drifts: the probability of pairs is exact, autocorrelation or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pocketvlm.analyse.raw import Floats

EXACT_TO = 200
"""With more pairs the distribution is taken as normal, which makes small p a little too large."""

_NORMAL = NormalDist()
_CONFIDENCE_OF_ERROR = 0.95


@dataclass(frozen=True)
class Difference:
    """By how much values differ, in the values' own unit.

    Attributes:
        n: pairs, or the values of the smaller sample.
        shift: the Hodges-Lehmann estimate.
        low, high: its interval.
        p: two-sided probability of what was seen or more, if nothing differed.
        effect: rank-biserial correlation from -1 to 1: share of the ranks that speak for more minus share of
            those that speak for less (of two samples Cliff's delta).
        error: standard error of the shift, from the width of its 95 % interval.
    """

    n: int
    shift: float
    low: float
    high: float
    p: float
    effect: float
    error: float


def paired(differences: Floats, *, confidence: float) -> Difference:
    """Return by how much the second of each pair exceeds the first.

    Args:
        differences: second minus first, finite, shape (n,), n >= 1.
        confidence: of the two-sided interval, between 0 and 1. With so few pairs that no interval reaches it,
            the interval is from the least to the greatest difference.
    """
    n = int(differences.size)
    ends = [_out(n, level) for level in (confidence, _CONFIDENCE_OF_ERROR)]
    count = n * (n + 1) // 2
    wanted = sorted({*ends, *(count - 1 - end for end in ends), (count - 1) // 2, count // 2})
    rows, columns = _pairs_of(n)
    # Sorted no further than it is read.
    walsh = np.partition((differences[rows] + differences[columns]) / 2, wanted)
    size = np.abs(differences)
    ranks = _midranks(size)
    ranks[size == 0] = 0  # Pratt's way: zeros take part in the ranking and speak for nothing.
    more = float(ranks[differences > 0].sum())
    total = float(ranks.sum())
    return Difference(
        n=n,
        shift=float(walsh[(count - 1) // 2] + walsh[count // 2]) / 2,
        low=float(walsh[ends[0]]),
        high=float(walsh[-1 - ends[0]]),
        p=_sign_flip_p(ranks, more),
        effect=(2 * more - total) / total if total else 0.0,
        error=float(walsh[-1 - ends[1]] - walsh[ends[1]]) / (2 * quantile(0.5 + _CONFIDENCE_OF_ERROR / 2)),
    )


def unpaired(first: Floats, second: Floats, *, confidence: float) -> Difference:
    """Return by how much the second sample exceeds the first; the probability is a normal distribution's.

    Args:
        first, second: finite, shapes (n,) and (m,), n and m >= 1.
        confidence: as `paired`.
    """
    n, m = int(first.size), int(second.size)
    differences = np.sort((second[:, None] - first[None, :]).ravel())
    ranks = _midranks(np.concatenate([first, second]))
    wins = float(ranks[n:].sum()) - m * (m + 1) / 2
    _, counts = np.unique(ranks, return_counts=True)
    ties = float((counts**3 - counts).sum()) / ((n + m) * (n + m - 1)) if n + m > 1 else 0.0
    variance = n * m / 12 * (n + m + 1 - ties)
    away = max(0.0, abs(wins - n * m / 2) - 0.5)
    p = 1.0 if variance <= 0 else min(1.0, 2 * _NORMAL.cdf(-away / math.sqrt(variance)))

    def ends(level: float) -> tuple[float, float]:
        spread = quantile(0.5 + level / 2) * math.sqrt(n * m * (n + m + 1) / 12)
        out = max(0, math.floor(n * m / 2 - spread) - 1)
        return float(differences[out]), float(differences[-1 - out])

    low, high = ends(confidence)
    inner = ends(_CONFIDENCE_OF_ERROR)
    return Difference(
        n=min(n, m),
        shift=float(np.median(differences)),
        low=low,
        high=high,
        p=p,
        effect=2 * wins / (n * m) - 1,
        error=(inner[1] - inner[0]) / (2 * quantile(0.5 + _CONFIDENCE_OF_ERROR / 2)),
    )


def least_pairs(alpha: float) -> int:
    """Return the fewest pairs that can be significant: all n point one way with probability 2^(1-n)."""
    return max(1, math.ceil(1 - math.log2(alpha)))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return probabilities corrected for how many there are (Holm, Scand. J. Statist. 6, 1979).

    What is then below alpha is wrong with at most that probability in all, however they depend on each other.
    """
    corrected = [0.0] * len(probabilities)
    greatest = 0.0
    for place, index in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        greatest = max(greatest, min(1.0, (len(probabilities) - place) * probabilities[index]))
        corrected[index] = greatest
    return corrected


def quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return _NORMAL.inv_cdf(probability)


def _midranks(values: Floats) -> Floats:
    """Return ranks from 1, equal values at the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = (last - (counts - 1) / 2)[inverse]
    return mean


@lru_cache(maxsize=8)
def _pairs_of(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of all pairs of n values, each with itself, too."""
    return np.triu_indices(n)


@lru_cache(maxsize=64)
def _out(n: int, confidence: float) -> int:
    """Return how many of the means of two are left out at each end of the interval."""
    tail = (1 - confidence) / 2
    if n > EXACT_TO:
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        beyond = math.floor(n * (n + 1) / 4 - quantile(1 - tail) * spread)
    else:
        # The end is the mean of that number, counted from 1.
        beyond = left_out(n, tail)
    return min(max(0, beyond - 1), (n * (n + 1) // 2 - 1) // 2)


@lru_cache(maxsize=256)
def left_out(n: int, tail: float) -> int:
    """Return how many values w of the signed-rank statistic of n pairs have P(W <= w) <= tail."""
    # Rounding must not take away the interval that n was chosen for.
    return int(np.searchsorted(_cumulative(n), tail * (1 + 1e-9), side="right"))


@lru_cache(maxsize=64)
def _cumulative(n: int) -> Floats:
    """Return P(W <= w) of the signed-rank statistic of n pairs, w from 0."""
    return np.cumsum(_distribution(tuple(range(1, n + 1))))


@lru_cache(maxsize=64)
def _distribution(ranks: tuple[int, ...]) -> Floats:
    """Return the distribution of a sum to which each rank belongs or not, by a fair coin."""
    chances = np.zeros(sum(ranks) + 1)
    chances[0] = 1.0
    reached = 0
    for rank in ranks:
        reached += rank
        with_it = np.zeros(reached + 1)
        with_it[rank:] = chances[: reached + 1 - rank]
        chances[: reached + 1] = (chances[: reached + 1] + with_it) / 2
    return chances


def _sign_flip_p(ranks: Floats, more: float) -> float:
    """Return the two-sided probability of a sum of the positive ranks, were each sign a fair coin."""
    kept = ranks[ranks > 0]
    if kept.size == 0:
        return 1.0
    if kept.size > EXACT_TO:
        spread = math.sqrt(float((kept**2).sum()) / 4)
        away = max(0.0, abs(more - float(kept.sum()) / 2) - 0.5)
        return min(1.0, 2 * _NORMAL.cdf(-away / spread))
    # Equal values share a rank with a half: doubled, all are whole.
    doubled = tuple(sorted(round(2 * rank) for rank in kept))
    whole = all(rank % 2 == 0 for rank in doubled)
    steps = tuple(rank // 2 for rank in doubled) if whole else doubled
    cumulative = np.cumsum(_distribution(steps))
    least = round(min(more, float(kept.sum()) - more) * (1 if whole else 2))
    return min(1.0, 2 * float(cumulative[least]))
