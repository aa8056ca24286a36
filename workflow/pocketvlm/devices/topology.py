"""Which CPUs of a device share a core, and which of its cores are faster than others.

It is asked of the device itself: an identity names only how many CPUs there are. Sources:
Documentation/ABI/stable/sysfs-devices-system-cpu (thread siblings, capacity) and cpufreq of the Linux kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketvlm.cpulist import parse as parse_cpus
from pocketvlm.devices.base import Device, run
from pocketvlm.errors import DeviceError

_ALIKE = 0.95
"""A core whose greatest clock, or capacity, is at least this share of another's is of the same class."""

# `S cpu siblings`, `F cpus kHz`, `C cpu capacity`, a line each. toybox and mksh have all that it uses.
_SCRIPT = r"""
root=$1
for folder in /sys/devices/system/cpu/cpu[0-9]*; do
    cpu=${folder##*/cpu}
    siblings=$(cat "$folder/topology/thread_siblings_list" 2>/dev/null) && echo "S $cpu $siblings"
    capacity=$(cat "$folder/cpu_capacity" 2>/dev/null) && echo "C $cpu $capacity"
done
for policy in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
    cpus=$(cat "$policy/related_cpus" 2>/dev/null) || continue
    clock=$(cat "$policy/cpuinfo_max_freq" 2>/dev/null) && echo "F $(echo $cpus | tr ' ' ,) $clock"
done
true
"""


@dataclass(frozen=True)
class Topology:
    """The CPUs of a device.

    Attributes:
        cores: the CPUs of each physical core, ascending.
        classes: the CPUs of each class of cores, the fastest class first; one where all are alike.
    """

    cores: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]

    @property
    def cpus(self) -> int:
        """How many CPUs there are."""
        return sum(len(core) for core in self.cores)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"cores": [list(core) for core in self.cores], "classes": [list(one) for one in self.classes]}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Topology:
        """Return what `plain` wrote."""
        return cls(*(tuple(tuple(one) for one in plain[name]) for name in ("cores", "classes")))


def read_topology(device: Device, cpus: int) -> Topology:
    """Ask a device for its topology.

    Args:
        device: the device.
        cpus: how many it has, by its identity.

    Raises:
        DeviceError: it does not answer.
    """
    return parse(run(device, ["sh", "-c", _SCRIPT, "sh", device.sysfs_root], 60), cpus)


def parse(printed: str, cpus: int) -> Topology:
    """Return the topology that a device told; what it does not tell is taken as alike, a core a CPU.

    Args:
        printed: lines of the script above; others are left out.
        cpus: how many CPUs there are, numbered from 0; what is told of others is left out.

    Raises:
        DeviceError: there is no CPU.
    """
    if cpus < 1:
        raise DeviceError("the device names no CPU", do="Identify it again: --forcerun identify_device")
    known = range(cpus)
    siblings: dict[int, frozenset[int]] = {}
    clock: dict[int, int] = {}
    capacity: dict[int, int] = {}
    for line in printed.splitlines():
        match line.split():
            case ["S", cpu, listed] if cpu.isdecimal() and (found := parse_cpus(listed)):
                siblings[int(cpu)] = found & set(known)
            case ["C", cpu, value] if cpu.isdecimal() and value.isdecimal():
                capacity[int(cpu)] = int(value)
            case ["F", listed, value] if value.isdecimal() and (found := parse_cpus(listed)):
                clock |= dict.fromkeys(found, int(value))
    cores = sorted({tuple(sorted(siblings.get(cpu, frozenset()) | {cpu})) for cpu in known})
    if sorted(cpu for core in cores for cpu in core) != list(known):
        cores = [(cpu,) for cpu in known]
    speed = next((told for told in (clock, capacity) if all(told.get(cpu) for cpu in known)), {})
    return Topology(tuple(cores), _classes(known, speed))


def _classes(cpus: range, speed: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    classes: list[list[int]] = []
    top = 0
    for cpu in sorted(cpus, key=lambda each: (-speed.get(each, 0), each)):
        if not classes or speed.get(cpu, 0) < _ALIKE * top:
            top = speed.get(cpu, 0)
            classes.append([])
        classes[-1].append(cpu)
    return tuple(tuple(sorted(one)) for one in classes)
