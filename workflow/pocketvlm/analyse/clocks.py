"""How fast the processor's clocks were, from the time that each policy spent at each of its frequencies.

`time_in_state` of cpufreq (Documentation/cpu-freq/cpufreq-stats) counts without gaps, so that a mean over it
misses no change of the clock between two samples: sum of f dt / sum of dt over the frequencies f.

A clock that falls from the first run of a cell to its last says that the later ones were throttled. What is
compared is decoding, in which a cell does the same in each run: its mean with that of its first seconds in
the cell's first run of the block, which is a warm-up where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketvlm.analyse.energy import difference, inside, unwrap
from pocketvlm.analyse.phases import Interval, of_phase
from pocketvlm.analyse.raw import Run
from pocketvlm.analyse.sensors import BUSY, MIN_SAMPLES, Sensors, Value

QUANTITY = "time_in_state"
REFERENCE_US = 3_000_000
"""So much of decoding is the first seconds: with a sample each 500 ms it holds MIN_SAMPLES."""

PHASE = "decode"
# A policy did work when its cores were busy for this much of one core; without the times of single cores
# all policies may have.
_WORKED_PERCENT = 10.0
_COMPONENT = re.compile(r"(policy(\d{1,4}))\.(\d{1,10})")

Spans = Sequence[tuple[int, int]]


def policies(sensors: Sensors) -> dict[str, list[int]]:
    """Return the frequencies in kHz of each policy that tells its times, policies by number."""
    found: dict[str, list[int]] = {}
    for series in sensors.find(QUANTITY, "policy"):
        if match := _COMPONENT.fullmatch(series.component):
            found.setdefault(match[1], []).append(int(match[3]))
    return dict(sorted(found.items(), key=lambda item: int(item[0][6:])))


def clock_mean(sensors: Sensors, policy: str, spans: Spans) -> Value:
    """Return the mean clock of a policy over spans, in MHz."""
    weighted = total = 0.0
    counts = []
    for series in sensors.find(QUANTITY, f"{policy}."):
        match = _COMPONENT.fullmatch(series.component)
        if match is None:
            continue
        counts.append(int(np.count_nonzero(inside(series.t_us, spans))))
        if counts[-1] < MIN_SAMPLES:
            return Value(None, counts[-1], f"{counts[-1]} samples in the phase, {MIN_SAMPLES} are needed")
        # A counter that goes back (hotplug, a reset of the statistics) tells nothing of the span.
        values = unwrap(series.values, series.wrap)
        if values is None:
            return Value(None, counts[-1], f"the counter {series.name} went back")
        increase, _ = difference(series.t_us, values, spans)
        weighted += int(match[3]) * increase
        total += increase
    if not counts:
        return Value(None, 0, sensors.why_missing(QUANTITY, component=policy))
    if total <= 0:
        return Value(None, min(counts), f"{policy} spent no time at any frequency")
    return Value(weighted / total * 1e-3, min(counts))


def clock_means(
    sensors: Sensors, spans: Spans, guard: Callable[[Callable[[], Value]], Value]
) -> Iterator[tuple[str, str, str, Value]]:
    """Give (metric, unit, source, value) of the mean clock of every policy; one NA where there is none."""
    found = policies(sensors)
    for policy in found:
        mean = guard(lambda p=policy: clock_mean(sensors, p, spans))  # type: ignore[misc]
        yield f"clock_mean.{policy}", "MHz", "sensor", mean
    if not found:
        missing = Value(None, 0, sensors.why_missing(QUANTITY))
        yield "clock_mean", "MHz", "sensor", guard(lambda: missing)


@dataclass(frozen=True)
class _Seen:
    """What is kept of a run: its place, and the clocks while it decoded."""

    run: str
    place: tuple[str, str]
    position: int
    first: Mapping[str, Value]
    means: Mapping[str, Value]
    worked: tuple[str, ...]
    missing: str


class ClockDrops:
    """Gathers the runs of a device and compares the clocks of each cell's runs in a block."""

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self.identity = identity
        self._seen: list[_Seen] = []

    def add(self, run: Run, intervals: Sequence[Interval], entry: Mapping[str, Any]) -> None:
        """Take a run of a cell, with its entry of the block's index."""
        sensors = Sensors(run, self.identity)
        spans = of_phase(intervals, PHASE)
        found = policies(sensors) if spans else {}
        first = _beginning(spans, REFERENCE_US)
        place = (str(entry.get("block", "")), str(entry["cell"]))
        self._seen.append(
            _Seen(
                run.name,
                place,
                int(entry["position"]),
                {policy: clock_mean(sensors, policy, first) for policy in found},
                {policy: clock_mean(sensors, policy, spans) for policy in found},
                _that_worked(sensors, found, spans),
                sensors.why_missing(QUANTITY) if spans else f"the run has no time in the phase {PHASE}",
            )
        )

    def drops(self) -> dict[str, Value]:
        """Return by run how far its clock lay below that of the cell's first seconds, in percent."""
        found = {}
        for seen in self._seen:
            begin = min((s for s in self._seen if s.place == seen.place), key=lambda s: s.position)
            found[seen.run] = _drop(begin, seen)
        return found


def _drop(begin: _Seen, seen: _Seen) -> Value:
    if not begin.worked or not seen.means:
        return Value(None, 0, (begin if not begin.worked else seen).missing)
    policy = begin.worked[0]
    reference, mean = begin.first[policy], seen.means.get(policy, Value(None, 0, seen.missing))
    for value, where in ((reference, "in the cell's first seconds: "), (mean, "")):
        if value.value is None:
            return Value(None, value.samples, f"{where}{value.reason}")
    assert reference.value and mean.value is not None
    return Value(100.0 * (1.0 - mean.value / reference.value), mean.samples)


def _beginning(spans: Spans, length_us: int) -> list[tuple[int, int]]:
    """Return the first microseconds of spans."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if length_us <= 0:
            break
        found.append((start, min(end, start + length_us)))
        length_us -= found[-1][1] - start
    return found


def _that_worked(sensors: Sensors, found: Mapping[str, Sequence[int]], spans: Spans) -> tuple[str, ...]:
    """Return the policies whose cores computed during spans, that of the highest frequency first.

    A policy is named by its first core; its cores reach to the next policy's.
    """
    fastest = sorted(found, key=lambda policy: max(found[policy]), reverse=True)
    starts = sorted(int(policy[6:]) for policy in found)
    busy: dict[int, float] = dict.fromkeys(starts, 0.0)
    told = False
    for series in sensors.find("cpu_time", "cpu"):
        core, _, kind = series.component.partition(".")
        if kind not in BUSY or not core[3:].isdecimal() or not starts or int(core[3:]) < starts[0]:
            continue
        values = unwrap(series.values, series.wrap)
        increase, seconds = difference(series.t_us, values, spans) if values is not None else (0.0, 0.0)
        if seconds > 0:
            told = True
            busy[max(start for start in starts if start <= int(core[3:]))] += 100.0 * increase / seconds
    if not told:
        return tuple(fastest)
    return tuple(policy for policy in fastest if busy[int(policy[6:])] >= _WORKED_PERCENT)
