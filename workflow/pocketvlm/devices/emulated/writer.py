"""The process that keeps the emulated phone's sensors true to its load, until it is told to stop.

Files are opened once and overwritten in place with one write of a fixed width: a reader that holds a file
open sees the new value at its next read, and never half of it. Padding is line feeds after the value.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.devices.emulated import frames, hal, load, model, sysfs
from pocketvlm.devices.emulated.switches import Switches
from pocketvlm.provenance import write_json

PERIOD_SECONDS = 0.1
_SAVE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
# CPU time is told in ticks of 10 ms: over one period that is a tenth, so the load is smoothed over a few.
_SMOOTHING_SECONDS = 0.2


class SensorFiles:
    """Files of a fixed width, written only when their content changes.

    Args:
        root: the phone's root folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, tuple[int, bytes]] = {}

    def write(self, path: str, width: int, text: str) -> None:
        """Overwrite a file with a text and padding up to `width` bytes."""
        content = f"{text}\n".encode().ljust(width, b"\n")
        if len(content) > width:
            raise ValueError(f"{path}: {text!r} is longer than {width} bytes")
        known = self._open.get(path)
        if known is None:
            target = self._root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.fstat(descriptor).st_size > width:
                os.ftruncate(descriptor, width)
        elif known[1] == content:
            return
        else:
            descriptor = known[0]
        os.pwrite(descriptor, content, 0)
        if known is not None and not known[1]:
            os.ftruncate(descriptor, width)
        self._open[path] = (descriptor, content)

    def read(self, path: str) -> str:
        """Return the first line of a file that was written here before, whoever wrote to it since."""
        line, *_ = os.pread(self._open[path][0], 256, 0).decode(errors="replace").splitlines() or [""]
        return line.strip()

    def forget(self, path: str) -> None:
        """Write a file anew at its next `write`, because somebody else has written to it."""
        self._open[path] = (self._open[path][0], b"")

    def leave(self, path: str, *, empty: bool) -> None:
        """Do not write a file that an earlier phone in this folder had: empty it, or remove it."""
        target = self._root / path
        if empty:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"")
        else:
            target.unlink(missing_ok=True)


def main(arguments: Mapping[str, Any]) -> None:
    """Write the sensors until SIGTERM, or until the parent is gone.

    Args:
        arguments: `root` (the phone's folder), `parent` (whose descendants are the load), `without` (process
            ids that are not the phone's), `cores`, `ambient` in degC, `charge_mah`, `options` (`rooted`,
            `charger_connected`, `denied`, `gauge`, as the device's file has them).
    """
    root = Path(arguments["root"])
    parent = int(arguments["parent"])
    without = {*arguments["without"], os.getpid()}
    phone = model.phone(
        int(arguments["cores"]),
        ambient=float(arguments["ambient"]),
        charge_mah=float(arguments["charge_mah"]),
    )
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    record = root / "state.json"
    try:
        saved = json.loads(record.read_text())
    except (OSError, ValueError):
        saved = None
    state = model.from_json(phone, saved, time.time())
    files = SensorFiles(root)
    for path, text in sysfs.constant(phone, state).items():
        files.write(path, len(text.encode()) + 1, text)
    options = arguments["options"]
    shown = shown_by(options)
    denied = frozenset(sysfs.denied(phone, state) if shown.denied else ())
    for path in denied:
        files.leave(path, empty=True)
    if not shown.denied:
        # Nothing writes it: only a phone that denies it has it, and this folder may have been one's.
        files.leave(sysfs.NPU, empty=False)
    if not shown.counter:
        files.leave(sysfs.COUNTER, empty=False)
    switches = Switches(
        root,
        files,
        {cluster.cpus[0]: cluster.clocks for cluster in phone.clusters},
        rooted=options["rooted"],
        charger=options["charger_connected"],
    )
    drawn = frames.begin(switches.foreground(), time.monotonic_ns())

    spent = load.cpu_seconds(parent, without)
    before = saved_last = time.monotonic()
    busy, due, told = 0.0, before, False
    looked = 0.0
    tree: dict[int, str | None] = {}
    while not stopping and os.getppid() == parent:
        changing = sysfs.changing(phone, state, shown)
        changing |= hal.files(phone, state, counter=shown.counter) | {"data/hal/frames": frames.text(drawn)}
        for path, (width, text) in changing.items():
            if path not in denied:
                files.write(path, width, text)
        if not told:
            print("ready", flush=True)
            told = True
        due += PERIOD_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))
        now, total = time.monotonic(), load.cpu_seconds(parent, without)
        due = max(due, now - PERIOD_SECONDS)
        elapsed = now - before
        # A process that ended between two looks takes its time along for a moment: no negative load.
        rate = max(total - spent, 0.0) / elapsed if elapsed > 0 else 0.0
        busy += (rate - busy) * min(1.0, elapsed / _SMOOTHING_SECONDS)
        state = model.step(phone, state, busy, elapsed, switches.look())
        if (activity := switches.foreground()) != drawn.activity:
            drawn = frames.begin(activity, time.monotonic_ns())
        drawn = frames.advance(drawn, time.monotonic_ns(), busy / phone.cores)
        spent, before = total, now
        if now - looked >= _LOOK_SECONDS:
            tree = known_below(parent, tree)
            looked = now
        if now - saved_last >= _SAVE_SECONDS:
            write_json(record, model.to_json(state, time.time()))
            saved_last = now
    write_json(record, model.to_json(state, time.time()))
    if os.getppid() != parent:
        end_orphans(tree)


def shown_by(options: Mapping[str, Any]) -> sysfs.Shown:
    """Return how the phone shows its sensors, from `denied` and `gauge` of its file."""
    gauge = options["gauge"]
    scale = 1e3 if gauge.get("current_unit") == "mA" else 1e6
    sign = 1 if gauge.get("current_sign") == "discharging_positive" else -1
    return sysfs.Shown(sign * scale, gauge.get("charge_counter", True), options["denied"])


def known_below(parent: int, before: dict[int, str | None]) -> dict[int, str | None]:
    """Return the processes below our parent with their start times; those known before if it is gone by now.

    What a parent that has just died left is below it no more, and must not be forgotten.
    """
    tree = {process: load.start_time(process) for process in load.descendants(parent)}
    return tree if os.getppid() == parent else before


def end_orphans(tree: dict[int, str | None]) -> None:
    """Kill what a killed supervisor left: the processes last seen below it, known by id and start time."""
    for process, started in tree.items():
        if process != os.getpid() and started is not None and load.start_time(process) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
