"""Integrals and differences of sensor values over the intervals of a phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pocketvlm.analyse.raw import Floats, Ints

Spans = Sequence[tuple[int, int]]


def inside(t_us: Ints, spans: Spans) -> NDArray[np.bool_]:
    """Return which times lie in any [start, end) of `spans`, shape as `t_us`."""
    mask = np.zeros(t_us.shape, dtype=np.bool_)
    for start, end in spans:
        mask |= (t_us >= start) & (t_us < end)
    return mask


def integral(t_us: Ints, values: Floats, spans: Spans) -> float:
    """Return the time integral of a gauge over spans, in its unit times seconds.

    Trapezoid on the samples, which are interpolated linearly at the ends of a span; before the first and
    after the last sample the nearest one is held.

    Args:
        t_us: ascending, shape (n,), n >= 1; values: finite, shape (n,).
    """
    total = 0.0
    for start, end in spans:
        within = (t_us > start) & (t_us < end)
        t = np.concatenate(([start], t_us[within], [end])).astype(np.float64)
        v = np.concatenate((np.interp([start], t_us, values), values[within], np.interp([end], t_us, values)))
        total += float(np.trapezoid(v, t)) * 1e-6
    return total


def mean(t_us: Ints, values: Floats, spans: Spans) -> float:
    """Return the time-weighted mean of a gauge over spans; arguments as `integral`."""
    return integral(t_us, values, spans) / (sum(end - start for start, end in spans) * 1e-6)


def unwrap(values: Floats, wrap: float | None) -> Floats | None:
    """Return a counter made monotonic, or None when it goes back and cannot have wrapped.

    A step back by less than half the range is taken for what it looks like, not for almost a whole turn.

    Args:
        values: readings, shape (n,).
        wrap: the value at which it begins again at 0 (`max_energy_range_uj` of powercap, plus one), if
            it does.
    """
    steps = np.diff(values)
    back = steps < 0
    if not back.any():
        return values
    if wrap is None or wrap <= 0 or np.any(values >= wrap):
        return None
    steps = np.where(back, steps + wrap, steps)
    if np.any(steps[back] > wrap / 2):
        return None
    return np.asarray(values[0] + np.concatenate(([0.0], np.cumsum(steps))), dtype=np.float64)


def difference(t_us: Ints, values: Floats, spans: Spans) -> tuple[float, float]:
    """Return a counter's increase over spans, and the seconds it was seen over.

    The counter is interpolated linearly at the ends; a span is cut to the time between the first and the
    last sample.

    Args:
        t_us: ascending, shape (n,), n >= 2; values: monotonic, shape (n,).
    """
    increase = seconds = 0.0
    for start, end in spans:
        low, high = max(start, int(t_us[0])), min(end, int(t_us[-1]))
        if high <= low:
            continue
        before, after = np.interp([low, high], t_us, values)
        increase += float(after - before)
        seconds += (high - low) * 1e-6
    return increase, seconds


def counter_energy(t_us: Ints, values: Floats, spans: Spans) -> float | None:
    """Return a cumulative counter's increase over spans, scaled to their whole length; None if unseen."""
    increase, seconds = difference(t_us, values, spans)
    if seconds <= 0:
        return None
    return increase * sum(end - start for start, end in spans) * 1e-6 / seconds
