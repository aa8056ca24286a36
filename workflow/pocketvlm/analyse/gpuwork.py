"""GPU time by uid: the difference of two tables of `dumpsys gpu --gpuwork`.

Source: services/gpuservice/gpuwork/GpuWork.cpp of AOSP (Android 13): a heading, then
`gpu_id uid total_active_duration_ns total_inactive_duration_ns`, and a row a GPU and uid; they only grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pocketvlm.analyse.raw import Run
from pocketvlm.analyse.responsiveness import missing_of
from pocketvlm.analyse.sensors import Value

SHELL, ROOT, SYSTEM = 2000, 0, 1000
"""Uids of Android (android_filesystem_config.h): adb's shell, root, and the system with SurfaceFlinger."""

_COLUMNS = ("gpu_id", "uid", "total_active_duration_ns")
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
_ROWS_MAX = 20_000
_OTHERS = 20

Row = tuple[str, str, str, Value]


def table(data: bytes) -> dict[int, int] | None:
    """Return active nanoseconds by uid, over all GPUs; None where this is no such table."""
    lines = data.decode("utf-8", errors="replace").splitlines()
    head = next((n for n, line in enumerate(lines) if set(_COLUMNS) <= set(line.split())), None)
    if head is None:
        return None
    names = lines[head].split()
    _, uid_at, active_at = (names.index(name) for name in _COLUMNS)
    found: dict[int, int] = {}
    for line in lines[head + 1 : head + 1 + _ROWS_MAX]:
        cells = line.split()
        if len(cells) != len(names) or not all(_NUMBER.fullmatch(cell) for cell in cells):
            break  # what follows the table is another one
        uid = int(cells[uid_at])
        found[uid] = found.get(uid, 0) + int(cells[active_at])
    return found


def gpu_time(run: Run, identity: Mapping[str, Any]) -> Iterator[Row]:
    """Give (metric, unit, source, value) of the GPU time of workload, screen and each other uid with any."""
    spent = _spent(run, identity)
    if isinstance(spent, str):
        for name in ("workload", "screen"):
            yield f"gpu_time_{name}", "ms", "sensor", Value(None, None, spent)
        return
    observed = run.meta.get("observed")
    told = observed.get("uid") if isinstance(observed, dict) else None
    workload = told if type(told) is int else ROOT if identity.get("root") is True else SHELL
    yield "gpu_time_workload", "ms", "sensor", Value(spent.pop(workload, 0) * 1e-6)
    screen = spent.pop(SYSTEM, 0) if workload != SYSTEM else None
    why = "" if screen is not None else "the workload runs as the system, so their times are one"
    yield "gpu_time_screen", "ms", "sensor", Value(None if screen is None else screen * 1e-6, None, why)
    others = sorted(spent.items(), key=lambda entry: (-entry[1], entry[0]))
    for uid, active in others[:_OTHERS]:
        if active > 0:
            yield f"gpu_time_uid.{uid}", "ms", "sensor", Value(active * 1e-6)


def _spent(run: Run, identity: Mapping[str, Any]) -> dict[int, int] | str:
    """Return nanoseconds by uid between the two tables, or why there are none."""
    if "gpu_work" not in (identity.get("snapshots") or {}):
        for entry in identity.get("missing", []):
            if entry.get("quantity") == "gpu_time":
                return str(entry.get("reason", ""))[:300] or "the device does not tell GPU time by uid"
        return f"{str(identity.get('id', 'the device'))[:100]} names no source of GPU time by uid"
    parts = []
    for when in ("before", "after"):
        data = run.tables.get(f"gpu_work-{when}.txt")
        found = None if data is None else table(data)
        if found is None:
            return (
                missing_of(run, "gpu_work")
                or f"the table of GPU work {when} the run is not there or malformed"
            )
        parts.append(found)
    before, after = parts
    if not after:
        return "the device lists no uid that used the GPU"
    spent = {uid: active - before.get(uid, 0) for uid, active in after.items()}
    if min(spent.values()) < 0 or any(uid not in after for uid in before):
        return "a counter of GPU time went back during the run"
    return spent
