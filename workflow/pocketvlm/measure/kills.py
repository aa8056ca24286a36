"""Processes that a device killed for want of memory while a run lasted, as its log tells them.

A kill of anything during a run says that memory ran short: pages were given back and read again, and what
was measured is that. One command after each run asks for the lines since it began. Two clocks matter: the
kernel's log counts seconds since the start without those asleep, Android's log the time of day. Both moments
are computed from the probe's CLOCK_BOOTTIME and what `/proc/uptime` (the same clock) and `date` say at the
look, so that a line of before the run never counts, unless the time of day was set in between.

Text of a log is untrusted: it is taken up to a limit, and lines are cut.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device
from pocketvlm.devices.root import privileged
from pocketvlm.errors import DeviceError
from pocketvlm.measure.memory import tells_a_kill
from pocketvlm.provenance import read_json

log = logging.getLogger(__name__)

_TIMEOUT_S = 20.0
_LOG_BYTES = 64 << 10
_LINES, _LINE = 20, 300
_TIME = "%Y-%m-%d %H:%M:%S"
# `$1`: when the run began, whole seconds of CLOCK_BOOTTIME. `-v epoch`, and `-T` with seconds: Android 7.
_SCRIPT = rf"""
read -r up rest < /proc/uptime
now=$(date '+%s.%N %Y-%m-%d %H:%M:%S')
printf 'up %s\nnow %s\n' "$up" "$now"
since=$((${{now%%.*}} - ${{up%%.*}} + $1 - 1))
kills='lowmemorykiller|killinfo|ut of memory'
if command -v logcat && logcat -d -t 1; then
    echo "log logcat" >&3
    logcat -d -v epoch -b events -b main -b system -T "$since.000" |
        grep -E "$kills" | tail -c {_LOG_BYTES} >&3
fi 3>&1 >/dev/null 2>/dev/null
if command -v dmesg && dmesg; then
    echo "log dmesg" >&3
    dmesg | grep -E "$kills" | tail -c {_LOG_BYTES} >&3
fi 3>&1 >/dev/null 2>/dev/null
exit 0
"""
# How a line is stamped: by `dmesg` (with or without its level) and `logcat -v epoch` in seconds, by a logcat
# that knows no epoch with the local time, without its year.
_DMESG = re.compile(r"(?:<\d{1,3}>)?\[\s*(\d{1,9}\.\d{6})\]")
_EPOCH = re.compile(r"\s*(\d{9,11}\.\d{3,9})\s")
_LOCAL = re.compile(r"(\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})\s")
_NOW = re.compile(r"^now (\d{1,12})(\.\d{1,9})?\S* (\d{4})-(\d\d-\d\d \d\d:\d\d:\d\d)$", re.MULTILINE)


class KillLog:
    """The logs of a device, looked at after each run as long as one of them can be read."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.readable = True

    def record(self, folder: Path) -> dict[str, Any]:
        """Return `low_memory_kills` of a run's `meta.json`; nothing where no log can be read.

        Args:
            folder: what the probe recorded of it.
        """
        if not self.readable:
            return {}
        probe = read_json(folder / "probe.json")
        start, asleep = probe["start_us"] / 1e6, probe.get("monotonic_offset_us") or 0
        argv = ["sh", "-c", _SCRIPT, "sh", str(int(start))]
        try:
            printed = self.device.shell(privileged(self.device, argv), _TIMEOUT_S).stdout
        except DeviceError:
            log.debug("the device's log cannot be read", exc_info=True)
            return {}
        found = since(printed, start, start - asleep / 1e6)
        self.readable = found is not None
        if found:
            log.warning("%s ran short of memory during the run: %s", self.device.id, found[0])
        return {} if found is None else {"low_memory_kills": found}


def since(printed: str, boot: float, monotonic: float) -> list[str] | None:
    """Return the lines that tell a kill since a moment, cut; None when no log could be read.

    Args:
        printed: what the script printed.
        boot, monotonic: the moment in seconds of CLOCK_BOOTTIME and CLOCK_MONOTONIC.
    """
    found: list[str] | None = None
    source = ""
    age = _age(printed, boot)
    for line in printed.splitlines():
        if line in ("log logcat", "log dmesg"):
            source, found = line[4:], found or []
            continue
        if found is None or len(found) >= _LINES or not tells_a_kill(line):
            continue
        if source == "dmesg":
            stamp = _DMESG.match(line)
            during = stamp is not None and float(stamp[1]) >= monotonic
        else:
            during = age is not None and age(line)
        if during:
            found.append(line.strip()[:_LINE])
    return found


def _age(printed: str, boot: float) -> Callable[[str], bool] | None:
    """Return what tells whether a line of logcat was written since a moment of CLOCK_BOOTTIME."""
    up = re.search(r"^up (\d{1,12}(?:\.\d{1,9})?)$", printed, re.MULTILINE)
    now = _NOW.search(printed)
    if up is None or now is None:
        return None
    # Where `date` knows whole seconds only, the second that had begun counts as over.
    fraction = float(now[2] or 1)
    epoch, ago = float(now[1]) + fraction, float(up[1]) - boot
    try:
        here = datetime.strptime(f"{now[3]}-{now[4]}", _TIME) + timedelta(seconds=fraction)
    except ValueError:
        return None

    def young(line: str) -> bool:
        if stamp := _EPOCH.match(line):
            return float(stamp[1]) >= epoch - ago
        if not (stamp := _LOCAL.match(line)):
            return False
        try:
            told = datetime.strptime(f"{now[3]}-{stamp[1]}", f"{_TIME}.%f")
            if told > here + timedelta(days=1):
                told = told.replace(year=told.year - 1)
        except ValueError:
            return False
        return told >= here - timedelta(seconds=ago)

    return young
