"""Frames of the foreground activity, from what `dumpsys gfxinfo` and `dumpsys SurfaceFlinger` print.

Sources: "Test UI performance" of Android's developer documentation (the columns of framestats, that rows
with other flags than 0 are to be left out, that a frame takes FrameCompleted - IntendedVsync, and that it
is jank when this is more than a frame's interval); libs/hwui of AOSP, JankTracker.cpp and FrameInfo.cpp
(120 rows a window, FrameInterval in nanoseconds); FrameTracker.cpp of AOSP's SurfaceFlinger (--latency: the
refresh period, then desired present, actual present and frame ready time of 128 frames; INT64_MAX is
pending); surface_stats_collector.py of Chromium's devil (a jank is where the latency of frames grows by a
refresh period). All times are CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pocketvlm.analyse.raw import Floats, Ints

PENDING = (1 << 63) - 1
KEPT = 120
"""Frames that gfxinfo keeps of each window."""

DEFAULT_INTERVAL_NS = 16_666_667
"""A frame at 60 Hz, the documentation's own measure, where the device tells none."""

_MARK = "---PROFILEDATA---"
_KEPT_LAYER = 127
_ROWS_MAX = 100_000
_NEEDED = ("Flags", "IntendedVsync", "FrameCompleted")
_NUMBER = re.compile(r"-?\d{1,19}", re.ASCII)
_TOTAL = re.compile(r"^Total frames rendered: (\d{1,12})\s*$", re.MULTILINE | re.ASCII)
_JANKY = re.compile(r"^Janky frames: (\d{1,12})\b", re.MULTILINE | re.ASCII)


@dataclass(frozen=True)
class Frames:
    """Frames that were drawn.

    Attributes:
        due_ns: when each was due (CLOCK_MONOTONIC), ascending, shape (frames,).
        janky: whether each took longer than a frame's interval, shape (frames,).
        full: a window's record was full, so that frames before the first one here are lost.
        total, janky_total: what the device itself counted since it was reset; None where it does not say.
        source: what they are from, for reasons.
    """

    due_ns: Ints
    janky: np.typing.NDArray[np.bool_]
    full: bool
    total: int | None
    janky_total: int | None
    source: str


def from_framestats(data: bytes, interval_ns: int | None) -> Frames | None:
    """Return the frames of `dumpsys gfxinfo PACKAGE framestats`; None where it has no table of frames.

    Args:
        data: what it printed.
        interval_ns: the display's refresh period, for versions whose table has no FrameInterval.
    """
    text = data.decode("utf-8", errors="replace")
    blocks = text.split(_MARK)[1::2]
    rows: list[tuple[int, int, int]] = []
    found = full = False
    for block in blocks:
        lines = block.strip().splitlines()
        header = [name.strip() for name in lines[0].rstrip(", ").split(",")] if lines else []
        if any(name not in header for name in _NEEDED):
            continue
        found = True
        taken = _rows(lines[1:], header, interval_ns or DEFAULT_INTERVAL_NS)
        full |= len(lines) - 1 >= KEPT
        rows += taken
        if len(rows) > _ROWS_MAX:
            return None
    if not found:
        return None
    rows.sort()
    due, took, interval = (
        (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        if rows
        else (np.empty(0, np.int64),) * 3
    )
    total, janky = _TOTAL.search(text), _JANKY.search(text)
    return Frames(
        due_ns=due,
        janky=took > interval,
        full=full,
        total=int(total[1]) if total else None,
        janky_total=int(janky[1]) if janky else None,
        source="gfxinfo",
    )


def _rows(lines: list[str], header: list[str], interval_ns: int) -> list[tuple[int, int, int]]:
    """Return (due, took, interval) of each whole frame; what is no row of numbers is left out."""
    places = [header.index(name) for name in _NEEDED]
    interval_at = header.index("FrameInterval") if "FrameInterval" in header else None
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < len(header) or not all(
            place < len(cells) and _NUMBER.fullmatch(cells[place]) for place in places
        ):
            continue
        flags, due, completed = (int(cells[place]) for place in places)
        if flags != 0 or not 0 < due < PENDING or not due < completed < PENDING:
            continue
        own = cells[interval_at] if interval_at is not None else ""
        told = int(own) if _NUMBER.fullmatch(own) else 0
        # Kernels and displays of 1 to 1000 Hz; anything else is no frame's interval.
        rows.append((due, completed - due, told if 10**6 <= told <= 10**9 else interval_ns))
    return rows


def refresh_period_ns(data: bytes) -> int | None:
    """Return the display's refresh period from `dumpsys SurfaceFlinger --latency`; None where it has none."""
    first = data.decode("utf-8", errors="replace").strip().split("\n", 1)[0].strip()
    value = int(first) if _NUMBER.fullmatch(first) else 0
    return value if 10**6 <= value <= 10**9 else None


def from_surfaceflinger(data: bytes) -> Frames | None:
    """Return the frames of `dumpsys SurfaceFlinger --latency LAYER`; None where it has no refresh period."""
    period = refresh_period_ns(data)
    if period is None:
        return None
    rows = []
    lines = data.decode("utf-8", errors="replace").strip().splitlines()[1:]
    for line in lines[:_ROWS_MAX]:
        cells = line.split()
        if len(cells) != 3 or not all(_NUMBER.fullmatch(cell) for cell in cells):
            continue
        desired, shown, ready = map(int, cells)
        if all(0 < value < PENDING for value in (desired, shown, ready)):
            rows.append((desired, ready - desired))
    rows.sort()
    due = np.array([row[0] for row in rows], dtype=np.int64)
    took: Floats = np.array([row[1] for row in rows], dtype=np.float64)
    periods = np.ceil(took / period)
    janky = np.concatenate([np.zeros(min(1, due.size), bool), np.diff(periods) > 0])
    return Frames(due, janky, len(rows) >= _KEPT_LAYER, None, None, "SurfaceFlinger")
