"""From the boundaries of a run to phases that exclude each other and sum to its wall time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks import INTERACTION, PHASES, Boundary

TOLERANCE_US = 1000


@dataclass(frozen=True)
class Interval:
    """One interval [start_us, end_us) of a phase, microseconds from the start of the run.

    Args:
        phase: one of PHASES.
        interval: number of the interval within its phase, from 0.
        start_boundary, end_boundary: what was seen at its ends.
        start_observed, end_observed: false where that moment is only a bound of the phase's own start or end.
    """

    phase: str
    interval: int
    start_us: int
    end_us: int
    start_boundary: str
    end_boundary: str
    start_observed: bool
    end_observed: bool

    @property
    def duration_us(self) -> int:
        """Length in microseconds."""
        return self.end_us - self.start_us


def whole(wall_us: int) -> list[Interval]:
    """Return the phases of a run that nothing is known about, such as an idle one: all of it is `other`."""
    return [Interval("other", 0, 0, wall_us, "start", "end", True, True)]


def segment(boundaries: Sequence[Boundary], wall_us: int) -> list[Interval]:
    """Return the intervals between boundaries; the last ends with the run.

    Args:
        boundaries: ordered by time, the first at 0; each names the phase that begins there.
        wall_us: length of the run.

    Raises:
        IntegrityError: boundaries out of order or outside the run, or a sum that is not the wall time.
    """
    if not boundaries or boundaries[0].t_us != 0:
        raise _disorder("the first boundary is not the start of the run")
    end = Boundary("end", wall_us, "")
    counts = dict.fromkeys((*PHASES, INTERACTION), 0)
    intervals = []
    for here, after in zip(boundaries, [*boundaries[1:], end], strict=True):
        if here.phase not in counts:
            raise _disorder(f"boundary {here.name} begins the unknown phase {here.phase!r}")
        if after.t_us < here.t_us:
            raise _disorder(
                f"boundary {after.name} at {after.t_us} µs is before {here.name} at {here.t_us} µs"
            )
        intervals.append(
            Interval(
                phase=here.phase,
                interval=counts[here.phase],
                start_us=here.t_us,
                end_us=after.t_us,
                start_boundary=here.name,
                end_boundary=after.name,
                start_observed=here.observed and here.exact,
                end_observed=after.observed,
            )
        )
        counts[here.phase] += 1
    check_sum(intervals, wall_us)
    return intervals


def check_sum(intervals: Sequence[Interval], wall_us: int) -> None:
    """Raise IntegrityError unless intervals exclude each other and sum to the wall time within 1 ms."""
    ordered = sorted(intervals, key=lambda i: (i.start_us, i.end_us))
    for here, after in itertools.pairwise(ordered):
        if after.start_us < here.end_us:
            raise _disorder(f"{here.phase} and {after.phase} overlap at {after.start_us} µs")
    total = sum(i.duration_us for i in ordered)
    if abs(total - wall_us) > TOLERANCE_US:
        raise _disorder(f"phases sum to {total} µs, the run lasted {wall_us} µs")


def of_phase(intervals: Sequence[Interval], phase: str) -> list[tuple[int, int]]:
    """Return (start_us, end_us) of every non-empty interval of a phase; `run` means all but interaction."""
    if phase == "run":
        return without_interaction(intervals)
    return [(i.start_us, i.end_us) for i in intervals if i.phase == phase and i.duration_us > 0]


def without_interaction(intervals: Sequence[Interval], until_us: int | None = None) -> list[tuple[int, int]]:
    """Return (start_us, end_us) of the run without interaction, up to a moment; neighbours are one span."""
    spans: list[tuple[int, int]] = []
    for interval in sorted(intervals, key=lambda i: (i.start_us, i.end_us)):
        end = interval.end_us if until_us is None else min(interval.end_us, until_us)
        if interval.phase == INTERACTION or end <= interval.start_us:
            continue
        if spans and spans[-1][1] == interval.start_us:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((interval.start_us, end))
    return spans


def _disorder(what: str) -> IntegrityError:
    return IntegrityError(what, do="report it with the run's folder: a grammar must give ordered boundaries")
