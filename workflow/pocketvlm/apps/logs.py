"""logcat's lines and their times: `MM-DD HH:MM:SS.mmm PID TID L tag: text`, no year, in the phone's zone.

Source: system/logging, liblog/logprint.cpp, the format threadtime. To put a line on the clock of the run, the
phone is asked for both of its clocks at once; only differences of one zone are used, so that it does not
matter which zone and which year it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STAMP = re.compile(r"(0[1-9]|1[0-2])-(\d\d) +(\d\d):(\d\d):(\d\d)\.(\d{3,9})", re.ASCII)
_LINE = re.compile(rf"({_STAMP.pattern}) +(\d{{1,9}}) +\d{{1,9}} +([VDIWEFS]) +(.*)", re.ASCII)
_DAYS = (0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)
_DAY_US = 86_400_000_000
# A leap year, in which every day that a log may name exists. Nothing of a run is half a year away from it.
_YEAR_US = 366 * _DAY_US
MAX_LINE = 8192


@dataclass(frozen=True)
class Line:
    """A line of the log: its time on the run's clock (us), the stamp as printed, process and text."""

    t_us: int
    stamp: str
    pid: int
    text: str


def microseconds(stamp: str) -> int:
    """Return the microseconds of a stamp since the beginning of a leap year; ValueError for what is none."""
    match = _STAMP.fullmatch(stamp.strip())
    if match is None:
        raise ValueError(f"{stamp[:40]!r} is no time of logcat")
    month, day, hour, minute, second = (int(match[group]) for group in range(1, 6))
    seconds = ((_DAYS[month - 1] + day - 1) * 24 + hour) * 3600 + minute * 60 + second
    return seconds * 1_000_000 + int(match[6].ljust(9, "0")) // 1000


@dataclass(frozen=True)
class Clocks:
    """The same moment on the phone's two clocks.

    Attributes:
        t_us: CLOCK_BOOTTIME in microseconds.
        stamp: the wall clock as logcat prints it.
    """

    t_us: int
    stamp: str

    def boot_us(self, stamp: str) -> int:
        """Return the CLOCK_BOOTTIME of a stamp, in microseconds."""
        apart = microseconds(stamp) - microseconds(self.stamp)
        if apart > _YEAR_US // 2:
            apart -= _YEAR_US
        elif apart < -_YEAR_US // 2:
            apart += _YEAR_US
        return self.t_us + apart

    def at(self, t_us: int) -> str:
        """Return a CLOCK_BOOTTIME as `logcat -T` takes it, rounded down to milliseconds."""
        since = (microseconds(self.stamp) + t_us - self.t_us) % _YEAR_US
        days, rest = divmod(since // 1000, _DAY_US // 1000)
        month = max(number for number in range(12) if _DAYS[number] <= days)
        seconds, millis = divmod(rest, 1000)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        day = days - _DAYS[month] + 1
        return f"{month + 1:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}.{millis:03d}"


def parse(printed: str, clocks: Clocks) -> list[Line]:
    """Return the lines of a log; what is none of its form (`--------- beginning of main`) is left out."""
    return [
        Line(clocks.boot_us(match[1]), match[1], int(match[8]), match[10])
        # Not splitlines: a text may hold what that takes for a line's end, and after it what looks like one.
        for line in printed.split("\n")
        if (match := _LINE.match(line[:MAX_LINE].rstrip("\r")))
    ]
