"""The frames of the activity in front of the emulated phone: a model, pure, on CLOCK_MONOTONIC as Android's.

The activity draws at every beat of a 60 Hz screen. How long a frame takes is a function of its number (an
even spread instead of chance) and of the share of the phone's cores that are busy: some 5 ms on an idle one,
and longer on a busy one, the slowest more than the rest, so that more frames are late the higher the load is.
A frame that is not ready at its next beat delays the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PERIOD_NS = 16_666_667
# SurfaceFlinger keeps 128 frames (FrameTracker.h), an activity's window 120 (libs/hwui, FrameInfoVisualizer).
KEPT = 128
_SHOWN_WIDTH = 64


@dataclass(frozen=True)
class Frame:
    """A frame: the beat that it was meant for, when it was drawn and when it was shown, in ns."""

    intended: int
    completed: int
    presented: int


@dataclass(frozen=True)
class Frames:
    """The frames of one activity since it came to the front.

    Attributes:
        activity: `PACKAGE/ACTIVITY`.
        since: when it came to the front, in ns.
        beat: the beat of the next frame, in ns.
        total, janky: frames so far, and those that missed their beat.
        last: the newest, oldest first.
    """

    activity: str
    since: int
    beat: int
    total: int = 0
    janky: int = 0
    last: tuple[Frame, ...] = ()


def begin(activity: str, now: int) -> Frames:
    """Return an activity that has just come to the front; `now` in ns."""
    return Frames(activity, now, -(-now // PERIOD_NS) * PERIOD_NS)


def duration(number: int, share: float) -> int:
    """Return how long a frame takes, in ns; more with a larger share (0 to 1) of busy cores."""
    spread = number * 2_654_435_761 % 2**32 / 2**32
    share = min(max(share, 0.0), 1.0)
    return round((4.0 + 3.0 * spread + 3.0 * share + 26.0 * share**2 * spread**3) * 1e6)


def advance(frames: Frames, now: int, share: float) -> Frames:
    """Draw every frame that is shown by `now` (ns) at this share of busy cores."""
    if not frames.activity:
        return frames
    beat, total, janky, last = frames.beat, frames.total, frames.janky, list(frames.last)
    # A phone that slept, or whose clock jumped, draws nothing for the time between.
    if now - beat > KEPT * PERIOD_NS:
        beat += (now - beat) // PERIOD_NS * PERIOD_NS - KEPT * PERIOD_NS
    while True:
        taken = duration(total, share)
        beats = max(1, -(-taken // PERIOD_NS))
        shown = beat + beats * PERIOD_NS
        if shown > now:
            break
        last.append(Frame(beat, beat + taken, shown))
        total, janky, beat = total + 1, janky + (beats > 1), shown
    return replace(frames, beat=beat, total=total, janky=janky, last=tuple(last[-KEPT:]))


def text(frames: Frames) -> tuple[int, str]:
    """Return width and content of the file that the phone's programs read.

    The first line: activity (`-` for none), since, total, janky; then a frame a line: intended, completed,
    presented; last `end` and total, by which a reader knows that it has not read half of two versions.
    """
    lines = [f"{frames.activity or '-'} {frames.since} {frames.total} {frames.janky}"]
    lines += [f"{frame.intended} {frame.completed} {frame.presented}" for frame in frames.last]
    lines.append(f"end {frames.total}")
    return (KEPT + 8) * _SHOWN_WIDTH, "\n".join(lines)
