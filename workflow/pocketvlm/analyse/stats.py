"""Statistics of repeated runs: quantiles, and a bootstrap interval on the median."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pocketvlm.analyse.raw import Floats

MIN_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Summary:
    """Statistics of n values; None where n is too small for one."""

    n: int
    mean: float | None
    std: float | None
    median: float | None
    p05: float | None
    p95: float | None
    ci_low: float | None
    ci_high: float | None


def bootstrap_median(
    values: Floats, *, resamples: int, confidence: float, seed: int, name: str
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: shape (n,), n >= 3.
        resamples: how many times n values are drawn with replacement.
        confidence: of the two-sided interval, between 0 and 1.
        seed, name: what is summarised; together they fix the draws, whatever else is computed before.
    """
    generator = np.random.Generator(np.random.PCG64([seed & 0xFFFFFFFF, zlib.crc32(name.encode())]))
    drawn = generator.integers(values.size, size=(resamples, values.size))
    medians = np.median(values[drawn], axis=1)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(medians, [tail, 100.0 - tail])
    return float(low), float(high)


def bootstrap_ratio(
    above: Floats, below: Floats, *, resamples: int, confidence: float, seed: int, name: str
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a ratio of two medians, both samples drawn by themselves.

    Args:
        above, below: positive, shapes (n,) and (m,), n and m >= 3; the others as `bootstrap_median`.
    """
    generator = np.random.Generator(np.random.PCG64([seed & 0xFFFFFFFF, zlib.crc32(name.encode())]))
    drawn = [
        np.median(values[generator.integers(values.size, size=(resamples, values.size))], axis=1)
        for values in (above, below)
    ]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(drawn[0] / drawn[1], [tail, 100.0 - tail])
    return float(low), float(high)


def bootstrap_paired_ratio(
    above: Floats, below: Floats, *, resamples: int, confidence: float, seed: int, name: str
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a ratio of two medians whose values were made in pairs.

    Pairs are drawn whole, so that what fell on both of a pair stays with both.

    Args:
        above, below: positive, shape (n,) each, a pair at each place, n >= 3.
        resamples, confidence, seed, name: as `bootstrap_median`.
    """
    generator = np.random.Generator(np.random.PCG64([seed & 0xFFFFFFFF, zlib.crc32(name.encode())]))
    drawn = generator.integers(above.size, size=(resamples, above.size))
    ratios = np.median(above[drawn], axis=1) / np.median(below[drawn], axis=1)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    return float(low), float(high)


def summarise(values: Floats, *, resamples: int, confidence: float, seed: int, name: str) -> Summary:
    """Return the statistics of repeated runs.

    Standard deviation of the sample (n - 1); quantiles by linear interpolation; an interval only from three
    values on.

    Args:
        values: finite, shape (n,); the others as `bootstrap_median`.
    """
    n = int(values.size)
    if n == 0:
        return Summary(0, None, None, None, None, None, None, None)
    low = high = None
    if n >= MIN_FOR_INTERVAL:
        low, high = bootstrap_median(values, resamples=resamples, confidence=confidence, seed=seed, name=name)
    p05, median, p95 = (float(q) for q in np.percentile(values, [5, 50, 95]))
    std = float(np.std(values, ddof=1)) if n > 1 else None
    return Summary(n, float(np.mean(values)), std, median, p05, p95, low, high)
