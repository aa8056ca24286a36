"""Whether a workload fits into a device's memory: asked before anything is pushed, and told afterwards.

Text of a device's logs is untrusted: it is taken up to a limit, searched for known lines, and cut.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.devices.base import Device
from pocketvlm.errors import DeviceError, WorkloadError
from pocketvlm.frameworks.settings import own
from pocketvlm.measure.jobs import CellFiles
from pocketvlm.weights.cost import UnknownShapeError
from pocketvlm.weights.description import read_record

log = logging.getLogger(__name__)

_TIMEOUT_S = 20.0
_LOG_BYTES = 64 << 10
_LINE = 300
# Below this share of a device's memory its system kills; the last so many samples are looked at.
_LOW = 0.1
_LAST = 3
# Lines that say that a process was killed for want of memory; group 1 is its id. Sources: mm/oom_kill.c of
# Linux; lmkd.cpp of Android (its words in the main log, and `killinfo` of event.logtags, whose first field is
# the id); the driver lowmemorykiller.c of older kernels.
_KILLED = (
    re.compile(r"(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process (\d+)"),
    re.compile(r"lowmemorykiller\s*(?:\(\s*\d+\))?:\s*Kill(?:ing)? '[^']{0,200}' \((\d+)\)"),
    re.compile(r"\bkillinfo\s*(?:\(\s*\d+\))?:\s*\[(\d+),"),
)
_LOGS = (
    "{ logcat -d -t 400 -b events -b main -b system; dmesg | tail -n 400; } 2>/dev/null "
    f"| tail -c {_LOG_BYTES}"
)


def available(device: Device) -> int | None:
    """Return the bytes that a device can give to a program (MemAvailable of proc(5)); None if unknown."""
    printed = device.shell(["cat", "/proc/meminfo"], _TIMEOUT_S).stdout
    match = re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", printed, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def needed(cell: CellFiles) -> dict[str, int] | None:
    """Return the bytes that a run of a cell holds, by what holds them; None where its adapter cannot tell."""
    records = {role: read_record(path) for role, path in cell.weights.items()}
    settings = frameworks.command(cell.adapter).resolve_settings(own(cell.settings))
    try:
        found: dict[str, int] = frameworks.memory(cell.adapter).footprint(records, settings)
    except UnknownShapeError as error:
        log.warning("how much memory %s takes is not known: %s", cell.cell, error)
        return None
    return found


def too_large(cell: CellFiles, free: int) -> str | None:
    """Return why a cell does not fit into so many free bytes, with the numbers; None when it does or may."""
    parts = needed(cell)
    if parts is None or sum(parts.values()) <= free:
        return None
    told = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    return f"it needs {sum(parts.values()) / 1e9:.2f} GB of memory ({told}) and {free / 1e9:.2f} GB are free"


def unfit(device: Device, cells: Mapping[str, CellFiles], *, rows: bool) -> dict[str, str]:
    """Return why cells do not fit into a device's memory as it is now, by cell.

    Args:
        device: the device, held by the caller.
        cells: the cells that are to be run, by id.
        rows: return the reasons; otherwise the first of them is an error.

    Raises:
        WorkloadError: a cell does not fit.
    """
    free = available(device)
    if free is None:
        log.warning("%s does not tell how much memory is free: nothing is checked", device.id)
        return {}
    found = {name: reason for name, cell in cells.items() if (reason := too_large(cell, free))}
    for name, reason in found.items():
        if not rows:
            raise WorkloadError(
                f"the workload does not fit into {device.id}: {reason}",
                where=name,
                do="Close other programs there, or choose a smaller context, KV type, quantisation or model",
            )
        log.warning("%s does not fit into %s: %s", name, device.id, reason)
    return found


def low_memory_kill(device: Device, folder: Path, identity: Mapping[str, Any]) -> str | None:
    """Return what shows that a workload that signal 9 killed had no memory left; None if nothing shows it.

    Args:
        device: where it ran, asked right after.
        folder: what the probe recorded of it.
        identity: of the device.
    """
    pid = _pid(folder)
    try:
        said = device.shell(["sh", "-c", _LOGS], _TIMEOUT_S).stdout[-_LOG_BYTES:]
    except DeviceError:
        log.debug("the device's log cannot be read", exc_info=True)
        said = ""
    line = named(said, pid) if pid is not None else None
    if line is not None:
        return f"the device's log says: {line}"
    left, total = _last_available(folder, identity), identity["memory_bytes"]
    if left is not None and total and left < _LOW * total:
        return f"{left / 1e9:.2f} of {total / 1e9:.1f} GB were available in the end"
    return None


def named(said: str, pid: int) -> str | None:
    """Return the last line of a log that says this process was killed for want of memory, cut; or None."""
    for line in reversed(said.splitlines()):
        for pattern in _KILLED:
            match = pattern.search(line[:4096])
            if match and int(match[1]) == pid:
                return line.strip()[:_LINE]
    return None


def tells_a_kill(line: str) -> bool:
    """Whether a line of a device's log says that a process was killed for want of memory."""
    return any(pattern.search(line[:4096]) for pattern in _KILLED)


def _pid(folder: Path) -> int | None:
    """Return the process id that the workload had on the device, as its record tells it."""
    try:
        with (folder / "events.jsonl").open() as stream:
            for line in stream:
                event = json.loads(line)
                if event["event"] == "start":
                    return int(event["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        log.debug("the record names no process", exc_info=True)
    return None


def _last_available(folder: Path, identity: Mapping[str, Any]) -> float | None:
    """Return the least of the last bytes that were available, as the device's sensor saw it."""
    for sensor in identity["sensors"]:
        if (sensor["quantity"], sensor["component"]) == ("memory", "available"):
            break
    else:
        return None
    try:
        with (folder / f"{sensor['group']}.csv").open(newline="") as stream:
            values = [row[sensor["name"]] for row in csv.DictReader(stream)]
        last = [float(value) * float(sensor["scale"]) for value in values[-_LAST:] if value]
    except (OSError, ValueError, KeyError, TypeError):
        log.debug("the record tells no available memory", exc_info=True)
        return None
    return min(last, default=None)
