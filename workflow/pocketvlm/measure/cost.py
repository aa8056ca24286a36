"""What measuring costs this host: calls to the device and CPU time of this process, a run."""

from __future__ import annotations

import statistics
import time

from pocketvlm.devices.base import Device


class Cost:
    """Counts from its making on; `begin` a run, `end` it.

    The adb server's and the workload's own CPU time (on this machine as a device) are not in it.

    Args:
        device: whose `calls` are counted.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._calls: list[int] = []
        self._cpu_s: list[float] = []
        self.begin()

    def begin(self) -> None:
        """What comes now belongs to a run."""
        self._at = (self._device.calls, time.process_time())

    def end(self) -> None:
        """The run is over."""
        calls, cpu_s = self._at
        self._calls.append(self._device.calls - calls)
        self._cpu_s.append(time.process_time() - cpu_s)

    def __str__(self) -> str:
        bridge = "adb" if self._device.serial is not None else "device"
        if not self._calls:
            return f"no run was made: {self._device.calls} {bridge} calls"
        return (
            f"{bridge} calls per run: {statistics.median(self._calls):g} "
            f"({min(self._calls)} to {max(self._calls)}), "
            f"host CPU per run: {statistics.median(self._cpu_s):.3f} s "
            f"({min(self._cpu_s):.3f} to {max(self._cpu_s):.3f}); {len(self._calls)} runs, "
            f"{self._device.calls} calls in all"
        )
