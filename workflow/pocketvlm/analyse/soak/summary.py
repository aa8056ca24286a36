"""What a device keeps up in a soak: the formulas of docs/method.md, section "Soak", as plain functions.

first      F = median speed of the runs that begin within the first minute
sustained  S = median speed of the runs that begin in the last third
ratio      S / F, with a bootstrap interval
rolling    m_k = median(v_(k-1), v_k, v_(k+1)) over the runs that have a speed
throttled  from the first k at which m_k, m_(k+1) and m_(k+2) are all below (1 - p / 100) F
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pocketvlm.analyse.raw import Floats
from pocketvlm.analyse.soak.runs import SoakRun
from pocketvlm.analyse.stats import MIN_FOR_INTERVAL, bootstrap_median, bootstrap_ratio

ROLLING = 3
"""Runs of the rolling median: of a step it keeps the moment, of a single slow run nothing."""

STAYS = 3
"""Rolling medians in a row that must be below the limit, however short the time that they take."""

LEAST = MIN_FOR_INTERVAL
"""Runs that the first minute and the last third stand on at least."""


@dataclass(frozen=True)
class Wanted:
    """The soak as the experiment asks for it.

    Attributes:
        duration_s, busy_percent: as measured.
        first_s: length of the first minute.
        throttle_percent: how much slower than the first minute counts as throttled.
    """

    duration_s: float
    busy_percent: float
    first_s: float
    throttle_percent: float


def first_window(duration_s: float, first_s: float) -> float:
    """Return the length of the first minute, at most a third of the soak: the last third is another time."""
    return min(first_s, duration_s / 3)


@dataclass(frozen=True)
class Quantity:
    """One row of the summary: a value, or in `note` why there is none; else `note` says what it stands on."""

    quantity: str
    value: float | None
    unit: str
    note: str = ""
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True)
class Windows:
    """Which of the runs with a speed are the first minute's and which the last third's.

    Attributes:
        first, last: places among the runs with a speed; empty where there are too few for both.
        why_none: why both are empty, else empty.
        first_note, last_note: what differs from what was asked.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    why_none: str = ""
    first_note: str = ""
    last_note: str = ""


def windows(starts: Sequence[float], wanted: Wanted) -> Windows:
    """Return the first minute and the last third of a soak.

    Args:
        starts: when each run with a speed began, in seconds since the soak did, ascending.
        wanted: the soak.
    """
    count = len(starts)
    if count < 2 * LEAST:
        return Windows((), (), f"too few runs with a speed: {count} of the {2 * LEAST} that are needed")
    limit = first_window(wanted.duration_s, wanted.first_s)
    notes = []
    if limit < wanted.first_s:
        notes.append(f"the first {limit:.3g} s, a third of the soak, instead of {wanted.first_s:g} s")
    first = [place for place, start in enumerate(starts) if start < limit]
    if len(first) < LEAST:
        notes.append(f"the first {LEAST} runs, for {len(first)} began within {limit:.3g} s")
        first = list(range(LEAST))
    last = [place for place, start in enumerate(starts) if start >= 2 * wanted.duration_s / 3]
    last_note = ""
    if len(last) < LEAST:
        last_note = f"the last {LEAST} runs, for {len(last)} began in the last third"
        last = list(range(count - LEAST, count))
    if first[-1] >= last[0]:
        return Windows((), (), "the first runs and those of the last third are partly the same")
    return Windows(tuple(first), tuple(last), "", "; ".join(notes), last_note)


def rolling(speeds: Floats) -> Floats:
    """Return the median of each run and its two neighbours, shape (n,); NaN at both ends."""
    medians = np.full(speeds.shape, np.nan)
    if speeds.size >= ROLLING:
        medians[1:-1] = np.median(np.lib.stride_tricks.sliding_window_view(speeds, ROLLING), axis=1)
    return medians


def throttled_at(speeds: Floats, starts: Sequence[float], limit: float, stays_s: float) -> int | None:
    """Return the first run at which the rolling median falls below a limit and stays there; None if none.

    Args:
        speeds, starts: of the runs that have a speed, in their order, shape (n,) each; 1/s and s.
        limit: 1/s.
        stays_s: how long it must stay below, and for STAYS medians in any case.
    """
    below = rolling(speeds) < limit
    for place in range(1, len(below) - STAYS):
        until = starts[place] + stays_s
        if starts[-1] < until:
            return None
        end = max(place + STAYS, int(np.searchsorted(starts, until)))
        if below[place : min(end, len(below) - 1)].all():
            return place
    return None


def summarise(
    runs: Sequence[SoakRun], wanted: Wanted, bootstrap: Mapping[str, Any], *, name: str, cut_short: int = 0
) -> list[Quantity]:
    """Return the summary of one soak.

    Args:
        runs: its runs in their order, at least one.
        wanted: the soak.
        bootstrap: resamples, confidence and seed.
        name: of the cell; fixes the draws of the bootstrap.
        cut_short: earlier soaks that were not finished and do not count.
    """
    begin = runs[0].start_us
    seconds = [run.seconds for run in runs]
    length = (runs[-1].end_us - begin) / 1e6
    gaps = np.array([(b.start_us - a.end_us) / 1e6 for a, b in pairwise(runs)])
    rows = [
        Quantity("duration", length, "s", f"{wanted.duration_s:g} s were asked for"),
        Quantity("runs", len(runs), "1"),
        Quantity(
            "busy",
            100 * sum(seconds) / length,
            "%",
            f"{wanted.busy_percent:g} % were asked for; the rest is pauses and what a run needs around it",
        ),
        Quantity(
            "gap",
            float(np.median(gaps)) if gaps.size else None,
            "s",
            "median time between two runs" if gaps.size else "there was one run",
            int(gaps.size),
        ),
        Quantity("cut_short", cut_short, "1", "earlier soaks that were not finished and do not count"),
    ]
    with_speed = [run for run in runs if run.speed.value is not None]
    speeds = np.array([run.speed.value for run in with_speed], dtype=float)
    starts = [(run.start_us - begin) / 1e6 for run in with_speed]
    chosen = windows(starts, wanted)
    rows += _speeds(runs, speeds, starts, chosen, wanted, bootstrap, name)
    parts = {
        "first": [with_speed[place] for place in chosen.first],
        "sustained": [with_speed[place] for place in chosen.last],
    }
    for part, mine in parts.items():
        rows.append(_power(part, mine, runs, chosen.why_none))
    rows.append(_energy(runs))
    rows += _clocks(parts, runs, chosen.why_none)
    rows += _temperatures(runs)
    return rows


def _speeds(
    runs: Sequence[SoakRun],
    speeds: Floats,
    starts: Sequence[float],
    chosen: Windows,
    wanted: Wanted,
    bootstrap: Mapping[str, Any],
    name: str,
) -> list[Quantity]:
    reasons = sorted({run.speed.reason for run in runs if run.speed.value is None})
    counted = Quantity("runs_without_speed", len(runs) - len(speeds), "1", "; ".join(reasons)[:400])
    units = (
        ("first_speed", "1/s"),
        ("sustained_speed", "1/s"),
        ("sustained_ratio", "1"),
        ("time_to_throttle", "s"),
        ("throttled", "%"),
    )
    if not chosen.first:
        return [counted, *(Quantity(quantity, None, unit, chosen.why_none) for quantity, unit in units)]
    first, last = speeds[list(chosen.first)], speeds[list(chosen.last)]
    median = float(np.median(first))
    rows = [counted]
    told = (chosen.first_note, chosen.last_note)
    for (quantity, unit), values, note in zip(units, (first, last), told, strict=False):
        low, high = bootstrap_median(values, **bootstrap, name=f"{name} {quantity}")
        rows.append(Quantity(quantity, float(np.median(values)), unit, note, len(values), low, high))
    low, high = bootstrap_ratio(last, first, **bootstrap, name=f"{name} ratio")
    ratio, used = float(np.median(last)) / median, len(first) + len(last)
    rows.append(Quantity("sustained_ratio", ratio, "1", "; ".join(filter(None, told)), used, low, high))
    limit = (1 - wanted.throttle_percent / 100) * median
    rule = f"below {limit:.4g} tokens/s, {100 - wanted.throttle_percent:g} % of the first minute's"
    rows.append(_throttling(speeds, starts, limit, wanted, rule))
    medians = rolling(speeds)[1:-1]
    share = 100 * float(np.mean(medians < limit))
    rows.append(Quantity("throttled", share, "%", f"of the rolling medians {rule}", len(medians)))
    return rows


def _throttling(speeds: Floats, starts: Sequence[float], limit: float, wanted: Wanted, rule: str) -> Quantity:
    stays_s = first_window(wanted.duration_s, wanted.first_s)
    place = throttled_at(speeds, starts, limit, stays_s)
    if place is not None:
        return Quantity("time_to_throttle", starts[place], "s", rule, len(speeds))
    never = f"not throttled within {wanted.duration_s:g} s ({rule})"
    above = np.flatnonzero(rolling(speeds)[1:-1] >= limit)
    late = len(speeds) - 2 - (int(above[-1]) + 1 if above.size else 0)
    if late:
        never += (
            f"; it fell below in the last {late + 1} runs, too late to say that it stays for {stays_s:.3g} s"
        )
    return Quantity("time_to_throttle", None, "s", never, len(speeds))


def _power(part: str, mine: Sequence[SoakRun], runs: Sequence[SoakRun], why_none: str) -> Quantity:
    values = [run.power.value for run in mine if run.power.value is not None]
    if values:
        return Quantity(f"power_{part}", float(np.median(values)), "W", "", len(values))
    return Quantity(
        f"power_{part}", None, "W", _reasons([run.power.reason for run in mine or runs], why_none)
    )


def _energy(runs: Sequence[SoakRun]) -> Quantity:
    values = [run.energy.value for run in runs if run.energy.value is not None]
    if len(values) == len(runs):
        return Quantity("energy", float(sum(values)), "J", "of all runs, without the time between", len(runs))
    return Quantity("energy", None, "J", _reasons([run.energy.reason for run in runs], "a run has no energy"))


def _reasons(found: Sequence[str], otherwise: str) -> str:
    return "; ".join(dict.fromkeys(reason for reason in found if reason))[:400] or otherwise


def _clocks(parts: Mapping[str, Sequence[SoakRun]], runs: Sequence[SoakRun], why_none: str) -> list[Quantity]:
    names = sorted({name for run in runs for name in run.clocks})
    rows = []
    if not set(names) - {"gpu"}:
        rows += [Quantity(f"clock_{part}", None, "MHz", runs[0].why_no_clock) for part in parts]
    for name in names:
        for part, mine in parts.items():
            values = [run.clocks[name] for run in mine if name in run.clocks]
            source = "gauge" if name == "gpu" else runs[0].clock_source
            rows.append(
                Quantity(
                    f"clock_{part}.{name}",
                    float(np.median(values)) if values else None,
                    "MHz",
                    f"from {source}" if values else why_none or "not seen in these runs",
                    len(values),
                )
            )
    return rows


def _temperatures(runs: Sequence[SoakRun]) -> list[Quantity]:
    names = sorted({name for run in runs for name in run.temperature_end})
    if not names:
        why = runs[0].why_no_temperature
        return [Quantity(f"temperature_{at}", None, "degC", why) for at in ("start", "end", "max")]
    rows = []
    for name in names:
        start, end = runs[0].temperature_start.get(name), runs[-1].temperature_end.get(name)
        highest = [run.temperature_max[name] for run in runs if name in run.temperature_max]
        few = "too few samples in the run"
        rows += [
            Quantity(f"temperature_start.{name}", start, "degC", "" if start is not None else few),
            Quantity(f"temperature_end.{name}", end, "degC", "" if end is not None else few),
            Quantity(
                f"temperature_max.{name}",
                max(highest) if highest else None,
                "degC",
                "" if highest else few,
                len(highest),
            ),
        ]
    return rows
