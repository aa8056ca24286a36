"""What is watched around a run beside the probe: snapshots, the shell, frames of a foreground activity.

Nothing of it is done unless the device's identity (`snapshots`) or the experiment (`responsiveness`) asks for
it, and nothing that goes wrong here fails a run: what is missing then is told in `meta.json` and becomes a
metric's reason.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device
from pocketvlm.errors import DeviceError

log = logging.getLogger(__name__)

# More than any of these commands prints; what a device sends beyond is no table.
FILE_BYTES = 1 << 20
_TIMEOUT_S = 15.0
# A ping that takes longer is lost: a person would have given up, too.
_PING_TIMEOUT_S = 5.0
# An activity that has just been started still draws its first frames.
_SETTLE_S = 1.0
_NOT_THERE = (126, 127)
# One window may have several layers (its surface, a blast queue, a dim layer): this many are asked.
_LAYERS = 4
# The clock that /proc/uptime prints is CLOCK_BOOTTIME (fs/proc/uptime.c), in hundredths of a second.
_UPTIME = re.compile(r"(\d{1,12}\.\d{1,6})\s", re.ASCII)


class _UnseenError(Exception):
    """What was to be watched cannot be; its text says why."""


class Observer:
    """Watches one run: `with observer: (the run)`, then `files()` and `meta`.

    Args:
        device: where the run is.
        snapshots: commands by name, their output is stored before and after (`snapshots` of identity.json).
        responsiveness: of the experiment: `shell_ping_ms`, `foreground_activity`.
    """

    def __init__(
        self,
        device: Device,
        snapshots: Mapping[str, Sequence[str]],
        responsiveness: Mapping[str, Any],
    ) -> None:
        self._device = device
        self._snapshots = snapshots
        self._activity: str | None = responsiveness.get("foreground_activity")
        period = responsiveness.get("shell_ping_ms")
        self._pings = Pings(device, period / 1000) if period else None
        self._files: dict[str, bytes] = {}
        self._unobserved: dict[str, str] = {}
        self._uid: int | None = None

    def __enter__(self) -> Observer:
        if self._activity:
            self._unobserved |= _told("frames", self._begin_frames)
        if self._snapshots:
            self._unobserved |= _told("uid", self._ask_uid)
        self._take("before")
        if self._pings:
            self._pings.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pings:
            # A run that is being ended waits for nothing: the device is to be given back at once.
            self._pings.stop(wait=kind is None)
        if kind is not None:
            return
        self._take("after")
        if self._activity and "frames" not in self._unobserved:
            self._unobserved |= _told("frames", self._end_frames)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write what was seen to the folder of the run, and return what `meta.json` says of it.

        Returns:
            empty where nothing was asked; else `observed`: why each thing that was asked for is missing, and
            the `uid` that the workload runs as, where snapshots tell what each uid did.
        """
        for name, data in self._files.items():
            (folder / name).write_bytes(data)
        if self._pings:
            self._pings.write(folder / "shell.csv")
        if not (self._files or self._pings or self._unobserved):
            return {}
        uid = {} if self._uid is None else {"uid": self._uid}
        return {"observed": {**uid, "missing": dict(sorted(self._unobserved.items()))}}

    def _take(self, when: str) -> None:
        for name, argv in self._snapshots.items():

            def snapshot(name: str = name, argv: Sequence[str] = argv) -> None:
                self._keep(f"{name}-{when}.txt", self._ask(argv))

            self._unobserved |= _told(name, snapshot)

    def _ask(self, argv: Sequence[str]) -> str:
        """Return what a command prints; _UnseenError with the reason where it cannot be had."""
        result = self._device.shell(argv, _TIMEOUT_S)
        if result.status in _NOT_THERE:
            raise _UnseenError(f"the device has no {argv[0]}")
        if result.status != 0:
            said = (result.stderr.strip() or result.stdout.strip() or "nothing")[:200]
            raise _UnseenError(f"{' '.join(argv[:3])} ended with status {result.status} and said: {said}")
        return result.stdout

    def _keep(self, name: str, text: str) -> None:
        data = text.encode()
        if len(data) > FILE_BYTES:
            data = data[:FILE_BYTES].rpartition(b"\n")[0] + b"\n"
        self._files[name] = data

    def _ask_uid(self) -> None:
        if self._device_root():
            self._uid = 0
            return
        printed = self._ask(["id", "-u"]).strip()
        self._uid = int(printed) if printed.isdecimal() and len(printed) < 10 else None

    def _device_root(self) -> bool:
        # The workload runs as root on a device whose file says so, and commands of ours as the shell's user.
        return self._device.root

    def _begin_frames(self) -> None:
        assert self._activity is not None
        printed = self._ask(["am", "start", "-n", self._activity])
        # `am` ends with 0 whatever becomes of it (Am.java prints "Error: …" or "Error type 3").
        if "Error" in printed:
            raise _UnseenError(f"{self._activity} could not be started: {printed.strip()[-200:]}")
        time.sleep(_SETTLE_S)
        self._ask(["dumpsys", "gfxinfo", self._package, "reset"])
        self._ask(["dumpsys", "SurfaceFlinger", "--latency-clear"])

    def _end_frames(self) -> None:
        self._keep("framestats.txt", self._ask(["dumpsys", "gfxinfo", self._package, "framestats"]))
        listed = self._ask(["dumpsys", "SurfaceFlinger", "--list"]).splitlines()
        layers = [_layer(line) for line in listed if self._package in line and len(line) < 400][-_LAYERS:]
        tables = [self._ask(["dumpsys", "SurfaceFlinger", "--latency", layer]) for layer in layers]
        if tables:
            # Of a window's layers the one that frames went to; a layer without has the period alone.
            self._keep("surfaceflinger.txt", max(tables, key=lambda table: table.count("\n")))

    @property
    def _package(self) -> str:
        return str(self._activity).partition("/")[0]


class Pings:
    """Tiny commands over the device's shell, one each period, and how long each took to answer.

    Args:
        device: whose shell.
        period_s: seconds from one ping to the next; one that takes longer lets those due meanwhile fall out.
    """

    def __init__(self, device: Device, period_s: float) -> None:
        self._device = device
        self._period_s = period_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._rows: list[tuple[int, int | None]] = []
        self._offset_us: int | None = None
        self._thread = threading.Thread(target=self._ping, name="shell pings", daemon=True)

    def start(self) -> None:
        """Ask the device for its clock, so that a lost ping has a time, too, and begin."""
        with contextlib.suppress(DeviceError, _UnseenError, OSError):
            self._once()
        self._thread.start()

    def stop(self, *, wait: bool = True) -> None:
        """End after the ping in flight, and wait for that; one that hangs is left to its own deadline."""
        self._stopping.set()
        if wait:
            self._thread.join(2 * _PING_TIMEOUT_S)

    def write(self, path: Path) -> None:
        """Write `shell.csv`: `t_us,round_trip_us`, a lost ping without a number."""
        with self._lock:
            rows = list(self._rows)
        lines = [f"{t_us},{'' if took is None else took}\n" for t_us, took in rows]
        path.write_text("".join(["t_us,round_trip_us\n", *lines]))

    def _ping(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            asked_us = _now_us()
            try:
                row: tuple[int, int | None] = self._once()
            except Exception:  # whatever it is, the run is worth more
                log.debug("a ping was lost", exc_info=True)
                row = (-1, None) if self._offset_us is None else (asked_us + self._offset_us, None)
            with self._lock:
                latest = self._rows[-1][0] if self._rows else 0
                if row[0] >= 0:  # else the device has never told its clock: there is no time to put it at
                    self._rows.append((max(row[0], latest), row[1]))
            now = time.monotonic()
            due += (max(0.0, now - due) // self._period_s + 1) * self._period_s

    def _once(self) -> tuple[int, int]:
        """Return the device's CLOCK_BOOTTIME during a ping and how long it took, in microseconds."""
        asked_us = _now_us()
        result = self._device.shell(["cat", "/proc/uptime"], _PING_TIMEOUT_S)
        took_us = _now_us() - asked_us
        match = _UPTIME.match(result.stdout)
        if result.status != 0 or not match:
            raise _UnseenError(f"/proc/uptime cannot be read on {self._device.id}")
        t_us = round(float(match[1]) * 1e6)
        self._offset_us = t_us - asked_us - took_us // 2
        return t_us, took_us


def _layer(line: str) -> str:
    """Return the layer's name in a line of --list; Android 14 and later print it within its state."""
    match = re.fullmatch(r"RequestedLayerState\{(.+?)(?: parentId=.*)?\}?", line.strip())
    return match[1] if match else line.strip()


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _told(name: str, action: Callable[[], None]) -> dict[str, str]:
    """Do something, and return why it could not be done, by name; empty when it could."""
    try:
        action()
    except DeviceError as error:
        why = error.what[:300]
    except (_UnseenError, OSError, ValueError) as error:
        why = str(error)[:300]
    else:
        return {}
    log.warning("%s is not recorded: %s", name, why)
    return {name: why}
