"""Keeping a workload on the CPUs that its cell asks for, and having the probe look whether it stays."""

from __future__ import annotations

from pocketvlm.cpulist import mask, parse
from pocketvlm.devices.base import Device
from pocketvlm.errors import DeviceError

# How often the probe looks at each thread's list: 0.15 % of a core with ten threads, 0.6 % with 64 (x86-64).
_LOOK_MS = 200


def check(device: Device) -> None:
    """Raise DeviceError where a device cannot keep a workload on some of its CPUs."""
    if device.shell(["sh", "-c", "command -v taskset"], 20).status != 0:
        raise DeviceError(
            f"{device.id} has no taskset, which keeps a workload on the CPUs of the setting affinity",
            do="Take affinity out of the cell's settings, or install it (util-linux; Android has toybox's)",
        )


def pin(affinity: str | None) -> list[str]:
    """Return the words before a command that keep it on CPUs; none for any CPU.

    They come before the device's `exec_prefix`: taskset is the device's own program, and what runs a program
    of another machine there (qemu) is to be kept with it.
    """
    cpus = parse(affinity) if affinity else None
    return ["taskset", mask(cpus)] if cpus else []


def watch(affinity: str | None) -> list[str]:
    """Return the probe's options that make it look at every thread; none where no CPUs are asked for."""
    return ["--threads-ms", str(_LOOK_MS)] if affinity else []
