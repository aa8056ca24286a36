"""How often the value of each sensor really changes, by the probe on a device that is left alone."""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device, run, substitute
from pocketvlm.devices.deploy import deploy
from pocketvlm.devices.root import privileged
from pocketvlm.errors import DeviceError
from pocketvlm.measure import sensorlist
from pocketvlm.provenance import read_json, sha256_file

# The GPU's load is a window's value on many phones: asked this often, the window's length shows.
GPU_PERIOD_MS = 10
_PERIOD_MS = 100
_GPU_GROUP = "gpu_busy"
# A device's files are untrusted: no more of them is read.
_ROWS = 100_000
_LINES = 100_000


def watched(identity: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Return an identity whose groups are asked as often as an inspection asks, its paths as on the device.

    The GPU's load gets a group of its own; every other group keeps its period where that is below 100 ms.
    """
    periods = {name: min(group["period_ms"], _PERIOD_MS) for name, group in identity["groups"].items()}
    sensors = [
        {
            **sensor,
            "path": substitute(sensor["path"], places),
            "group": _GPU_GROUP if sensor["quantity"] == "gpu_busy" else sensor["group"],
        }
        for sensor in identity["sensors"]
    ]
    groups = {**periods, _GPU_GROUP: GPU_PERIOD_MS}
    used = {sensor["group"] for sensor in sensors}
    return {
        "groups": {name: {"period_ms": period} for name, period in groups.items() if name in used},
        "sensors": sensors,
    }


def record(
    device: Device,
    watched_identity: Mapping[str, Any],
    probe: Path,
    seconds: int,
) -> tuple[float, dict[str, dict[str, Any]]]:
    """Let the probe watch a device that does nothing, and return for how long and what it saw, by sensor.

    Args:
        device: the device, held.
        watched_identity: of `watched`.
        probe: folder of the probe's bundle for the device's target.
        seconds: how long.

    Raises:
        DeviceError, TransientDeviceError: the device refuses, does not answer, or the probe failed.
    """
    program = probe / "bin" / "probe"
    runs = f"{device.remote_dir}/runs"
    out = f"{runs}/{os.urandom(6).hex()}"
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "sensors.tsv")
        sensorlist.write(watched_identity, listed)
        hashes = {path: sha256_file(path) for path in (program, listed)}
        placed = deploy(device, list(hashes.items()), device.remote_dir, programs={program})
        run(device, ["mkdir", "-p", runs], 60)
        argv = [
            *device.exec_prefix,
            placed[hashes[program]],
            *("run", "--sensors", placed[hashes[listed]], "--out", out, "--deadline", str(seconds + 30)),
            *("--", "sleep", str(seconds)),
        ]
        try:
            run(device, privileged(device, argv), seconds + 90)
            if device.root:
                # Root wrote it, and adbd reads it as somebody else.
                device.root_shell(["chmod", "-R", "a+rX", out], 60)
            device.pull(out, Path(folder, "run"))
        finally:
            device.shell(privileged(device, ["rm", "-rf", out]), 60)
        return summarise(watched_identity, Path(folder, "run"))


def summarise(watched_identity: Mapping[str, Any], folder: Path) -> tuple[float, dict[str, dict[str, Any]]]:
    """Return the seconds that a recorded run took and, by sensor, what was seen of it.

    `sample` (in the sensor's unit, or text), `raw`, `reads`, `unreadable`, `changes`, `changes_per_s` (null
    when it never changed or was never read) and `interval_ms`, the median time between two changes.

    Raises:
        DeviceError: the record is not complete.
    """
    try:
        told = read_json(folder / "probe.json")
        seconds = (told["end_us"] - told["start_us"]) / 1e6
        counts = {
            name: told["sensors"][name] for name in (each["name"] for each in watched_identity["sensors"])
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"the record of the probe is not complete: {type(error).__name__} {error}",
            do="Start again; if it fails again, run the probe by hand on the device",
        ) from None
    columns: dict[str, list[tuple[int, str]]] = {}
    for group in watched_identity["groups"]:
        columns |= _columns(folder / f"{group}.csv")
    texts = _texts(folder / "events.jsonl")
    seen = {}
    for sensor in watched_identity["sensors"]:
        name, count = sensor["name"], counts[sensor["name"]]
        values = columns.get(name, [])
        # Of a counter of the process the last line is that of one that has ended.
        raw = values[len(values) // 2][1] if values else texts.get(name)
        changes = int(count["changes"])
        moments = [two[0] for one, two in itertools.pairwise(values) if one[1] != two[1]]
        intervals = [two - one for one, two in itertools.pairwise(moments)]
        seen[name] = {
            "sample": raw if sensor["scale"] is None or raw is None else float(raw) * sensor["scale"],
            "raw": raw,
            "reads": int(count["reads"]),
            "unreadable": int(count["unreadable"]),
            "changes": changes,
            "changes_per_s": round(changes / seconds, 3) if changes and seconds > 0 else None,
            "interval_ms": round(statistics.median(intervals) / 1000, 1) if intervals else None,
        }
    return seconds, seen


def _columns(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Return time in us and value as printed by sensor, of the ticks at which it could be read."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream)
        names = next(rows, [])[1:]
        found: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
        for row in itertools.islice(rows, _ROWS):
            for name, value in zip(names, row[1:], strict=False):
                if value:
                    found[name].append((int(row[0]), value))
    return found


def _texts(path: Path) -> dict[str, str]:
    """Return the latest text of each text sensor."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in itertools.islice(stream, _LINES):
            event = json.loads(line)
            if event.get("event") == "text":
                found[str(event["sensor"])] = str(event["value"])[:200]
    return found
