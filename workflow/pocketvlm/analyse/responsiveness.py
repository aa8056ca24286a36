"""What a person would notice meanwhile: missed deadlines, the shell's answers, and frames, by phase.

Metrics that the experiment does not ask for have one row, that of the run, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pocketvlm.analyse import frames
from pocketvlm.analyse.energy import Spans, inside
from pocketvlm.analyse.raw import Ints, Run
from pocketvlm.analyse.sensors import MIN_SAMPLES, Value

WAKE_US = 16_667
"""Period of the waking thread, the probe's default: the runner asks for no other."""

RATES_HZ = (60, 120)
_DEADLINES_MAX = 20_000_000

Row = tuple[str, str, str, Value]


class Responsiveness:
    """One run's responsiveness.

    Args:
        run: the recorded run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        inputs = run.meta.get("key_inputs")
        asked = inputs.get("responsiveness") if isinstance(inputs, dict) else None
        asked = asked if isinstance(asked, dict) else {}
        self._pinged = "shell_ping_ms" in asked
        self._drawn = "foreground_activity" in asked
        self._due_us, self._late_us = _deadlines(run.wake_t_us, run.wake_late_us)
        self._frames, self._no_frames = self._find_frames() if self._drawn else (None, "")

    def of_phase(self, phase: str, spans: Spans, *, skip: str) -> Iterator[Row]:
        """Give (metric, unit, source, value) of a phase; NA because of `skip` if that is not empty."""
        for rate in RATES_HZ:
            value = Value(None, None, skip) if skip else self._missed(spans, rate)
            yield f"missed_deadlines_{rate}hz", "%", "probe", value
        if self._pinged or phase == "run":
            for percentile in (50, 99):
                value = Value(None, None, skip) if skip else self._round_trip(spans, percentile)
                yield f"shell_round_trip_p{percentile}", "ms", "observed", value
        if self._drawn or phase == "run":
            none = Value(None, None, skip)
            drawn, jank = (none, none) if skip else self._jank(phase, spans)
            yield "frames", "1", "observed", drawn
            yield "jank_percent", "%", "derived", jank

    def _missed(self, spans: Spans, rate: int) -> Value:
        if self._due_us is None:
            return Value(None, None, "wake.csv tells of more wake-ups than a run can have")
        late = self._late_us[inside(self._due_us, spans)]
        if late.size < MIN_SAMPLES:
            return _few(int(late.size), "wake-ups were due")
        missed = np.count_nonzero(late > 1_000_000 / rate)
        return Value(100.0 * float(missed) / late.size, int(late.size))

    def _round_trip(self, spans: Spans, percentile: int) -> Value:
        if not self._pinged:
            return Value(None, None, "the experiment asks for no shell round trips")
        trips = self._run.shell_us[inside(self._run.shell_t_us, spans)]
        answered = trips[np.isfinite(trips)]
        if answered.size < MIN_SAMPLES:
            lost = trips.size - answered.size
            what = f"of {trips.size} pings were answered" if lost else "pings were sent"
            return _few(int(answered.size), what)
        return Value(float(np.percentile(answered, percentile)) * 1e-3, int(answered.size))

    def _find_frames(self) -> tuple[frames.Frames | None, str]:
        """Return the frames drawn, or why they are not known."""
        latency = self._run.tables.get("surfaceflinger.txt", b"")
        found = None
        if "framestats.txt" in self._run.tables:
            period = frames.refresh_period_ns(latency)
            found = frames.from_framestats(self._run.tables["framestats.txt"], period)
        if found is None or (found.due_ns.size == 0 and not found.total):
            found = frames.from_surfaceflinger(latency) or found
        if found is None:
            return None, missing_of(self._run, "frames") or "the device printed no table of frames"
        return found, ""

    def _jank(self, phase: str, spans: Spans) -> tuple[Value, Value]:
        if not self._drawn:
            none = Value(None, None, "the experiment names no foreground activity")
            return none, none
        found = self._frames
        if found is None:
            none = Value(None, None, self._no_frames)
            return none, none
        if phase == "run" and found.full and found.total is not None and found.janky_total is not None:
            # More frames than the record keeps: of the run as a whole the device's own count is left.
            return Value(float(found.total)), _share(found.janky_total, found.total)
        offset = self._run.probe.get("monotonic_offset_us")
        if type(offset) is not int or abs(offset) > 1 << 53:
            none = Value(None, None, "the probe did not say how far CLOCK_MONOTONIC is from its clock")
            return none, none
        start_us = self._run.probe["start_us"]
        t_us: Ints = found.due_ns // 1000 + (offset - start_us)
        first = min((span[0] for span in spans), default=0)
        if found.full and t_us.size and t_us[0] > first:
            none = Value(
                None, None, f"{found.source} keeps the latest frames only, and the phase began before them"
            )
            return none, none
        within = inside(t_us, spans)
        count = int(np.count_nonzero(within))
        return Value(float(count), count), _share(int(np.count_nonzero(found.janky[within])), count)


def missing_of(run: Run, name: str) -> str:
    """Return why something that was asked for is not in a run, as `meta.json` says; else an empty text."""
    observed: Any = run.meta.get("observed")
    missing = observed.get("missing") if isinstance(observed, dict) else None
    reason = missing.get(name) if isinstance(missing, dict) else None
    return str(reason)[:300].replace("; ", ", ") if reason else ""


def _deadlines(woke_us: Ints, late_us: Ints) -> tuple[Ints | None, Ints]:
    """Return when each wake-up was due and how late it was, those that were slept through included.

    The thread that wakes late skips what became due meanwhile, as a display skips frames; each of these was
    missed by as much as it came before the waking. None where the file cannot be that of a run.
    """
    if woke_us.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # It cannot have been later than since it last woke: that bounds what a wrong number may do.
    since = np.diff(woke_us, prepend=woke_us[0] - np.clip(late_us[0], 0, 60_000_000))
    late = np.clip(late_us, 0, since)
    skipped = late // WAKE_US
    total = int(skipped.sum()) + late.size
    if total > _DEADLINES_MAX:
        return None, late
    each = np.repeat(np.arange(late.size), skipped + 1)
    first = np.cumsum(skipped + 1) - (skipped + 1)
    number = np.arange(total) - first[each]
    lateness = late[each] - number * WAKE_US
    return woke_us[each] - lateness, lateness


def _share(part: int, whole: int) -> Value:
    if whole < MIN_SAMPLES:
        return _few(whole, "frames were drawn")
    return Value(100.0 * part / whole, whole)


def _few(count: int, what: str) -> Value:
    return Value(None, count, f"{count} {what}, {MIN_SAMPLES} are needed")
