"""How the emulated phone shows its sensors: the files of a Qualcomm phone's sysfs, in Linux' units.

Sources: Documentation/ABI/testing/sysfs-class-power (uA, uV, uAh, tenths of a degree; a current is negative
while the battery discharges), Documentation/admin-guide/pm/cpufreq.rst and cpufreq-stats.rst (kHz, 10 ms),
sysfs-class-thermal (milli-degrees), drivers/gpu/msm/kgsl_pwrctrl.c of the public kernels (`gpubusy`,
`gpu_busy_percentage`, `gpuclk` in Hz).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pocketvlm.devices.emulated.controls import GOVERNORS
from pocketvlm.devices.emulated.model import Phone, State

_CPUFREQ = "sys/devices/system/cpu/cpufreq"
_THERMAL = "sys/class/thermal"
_BATTERY = "sys/class/power_supply/battery"
_KGSL = "sys/class/kgsl/kgsl-3d0"
COUNTER = f"{_BATTERY}/charge_counter"
# A core's own sensor sits in the hot spot: warmer than the die by so many kelvin for each watt of its
# cluster.
_HOT_SPOT = 1.5
# What phones usually deny to the shell. There and empty, it is unreadable for whoever looks, root or not.
_DENIED = (
    r"sys/class/kgsl/kgsl-3d0/(gpubusy|gpu_busy_percentage|devfreq/gpu_load)",
    r"sys/kernel/debug/sysmon_subsystem_stats/master_cdsp_stats",
)
NPU = "sys/kernel/debug/sysmon_subsystem_stats/master_cdsp_stats"
_ZONES_FOR_ALL = ("skin-msm-therm", "battery")


@dataclass(frozen=True)
class Shown:
    """How this phone shows its sensors.

    Attributes:
        current_scale: units of current_now for one ampere that leaves the battery.
        counter: whether the gauge counts charge.
        denied: whether it denies its shell what phones usually do.
    """

    current_scale: float = -1e6
    counter: bool = True
    denied: bool = False


USUAL = Shown()


def denied(phone: Phone, state: State) -> list[str]:
    """Return the files that are there and empty on a phone that denies them, by path below its root."""
    temperatures = [
        f"{_THERMAL}/thermal_zone{index}/temp"
        for index, (zone, _) in enumerate(zones(phone, state))
        if zone not in _ZONES_FOR_ALL
    ]
    known = [*changing(phone, state, Shown()), NPU]
    return temperatures + [path for path in known if any(re.fullmatch(one, path) for one in _DENIED)]


def zones(phone: Phone, state: State) -> list[tuple[str, float]]:
    """Return the thermal zones in their order: type and temperature in degC."""
    heat = state.temperatures
    found = [
        (f"cpu-{cluster}-{number}", heat["cpu"] + _HOT_SPOT * state.cluster_watts[cluster])
        for cluster, members in enumerate(phone.clusters)
        for number in range(len(members.cpus))
    ]
    found += [("gpuss-0", heat["gpu"]), ("gpuss-1", heat["gpu"])]
    found += [("nspss-0", (heat["cpu"] + heat["gpu"]) / 2), ("ddr", 0.6 * heat["cpu"] + 0.4 * heat["skin"])]
    found += [("pm8550_tz", heat["pmic"]), ("skin-msm-therm", heat["skin"]), ("battery", heat["battery"])]
    return found


def constant(phone: Phone, state: State) -> dict[str, str]:
    """Return the files whose content never changes, by path below the phone's root."""
    named = zones(phone, state)
    files = {f"{_THERMAL}/thermal_zone{index}/type": zone for index, (zone, _) in enumerate(named)}
    for cluster in phone.clusters:
        folder = f"{_CPUFREQ}/policy{cluster.cpus[0]}"
        cpus = " ".join(map(str, cluster.cpus))
        files |= {
            f"{folder}/affected_cpus": cpus,
            f"{folder}/related_cpus": cpus,
            f"{folder}/cpuinfo_min_freq": str(cluster.clocks[0]),
            f"{folder}/cpuinfo_max_freq": str(cluster.clocks[-1]),
            f"{folder}/scaling_available_frequencies": " ".join(map(str, cluster.clocks)),
            f"{folder}/scaling_available_governors": " ".join(GOVERNORS),
        }
    files |= {
        f"{_BATTERY}/type": "Battery",
        f"{_BATTERY}/present": "1",
        f"{_BATTERY}/technology": "Li-poly",
        f"{_BATTERY}/health": "Good",
        f"{_BATTERY}/cycle_count": "87",
        f"{_BATTERY}/charge_full": str(round(phone.charge_full / 3.6e-3)),
        f"{_BATTERY}/charge_full_design": str(round(phone.charge_full / 3.6e-3)),
        f"{_KGSL}/gpu_model": "Adreno-like (emulated)",
        f"{_KGSL}/gpu_available_frequencies": " ".join(map(str, reversed(phone.gpu_clocks))),
        f"{_KGSL}/max_gpuclk": str(phone.gpu_clocks[-1]),
        f"{_KGSL}/devfreq/available_frequencies": " ".join(map(str, phone.gpu_clocks)),
        f"{_KGSL}/devfreq/governor": "msm-adreno-tz",
        f"{_KGSL}/devfreq/min_freq": str(phone.gpu_clocks[0]),
        f"{_KGSL}/devfreq/max_freq": str(phone.gpu_clocks[-1]),
    }
    return files


def changing(phone: Phone, state: State, shown: Shown = USUAL) -> dict[str, tuple[int, str]]:
    """Return the files that change: width in bytes and content, by path below the phone's root.

    What a phone denies is among them: the writer leaves it out.
    """
    number = 16
    files = {
        f"{_THERMAL}/thermal_zone{index}/temp": (number, str(round(celsius * 10) * 100))
        for index, (_, celsius) in enumerate(zones(phone, state))
    }
    for cluster, clock, times in zip(phone.clusters, state.clocks, state.time_in_state, strict=True):
        folder = f"{_CPUFREQ}/policy{cluster.cpus[0]}"
        files[f"{folder}/scaling_cur_freq"] = (number, str(clock))
        lines = "\n".join(f"{known} {round(seconds * 100)}" for known, seconds in times.items())
        files[f"{folder}/stats/time_in_state"] = (24 * len(times), lines)
    amperes, volts = state.gauge
    busy, total, clock = state.gpu
    files |= {
        f"{_BATTERY}/current_now": (number, str(round(amperes * shown.current_scale))),
        f"{_BATTERY}/voltage_now": (number, str(round(volts * 1e6))),
        f"{_BATTERY}/temp": (number, str(round(state.temperatures["battery"] * 10))),
        f"{_BATTERY}/capacity": (number, str(round(100 * state.charge / phone.charge_full))),
        f"{_BATTERY}/status": (number, state.status),
        f"{_KGSL}/gpubusy": (32, f"{busy:7d} {total:7d}"),
        f"{_KGSL}/gpu_busy_percentage": (number, f"{round(100 * busy / max(total, 1))} %"),
        f"{_KGSL}/gpuclk": (number, str(clock)),
        f"{_KGSL}/devfreq/cur_freq": (number, str(clock)),
        f"{_KGSL}/devfreq/gpu_load": (number, str(round(100 * busy / max(total, 1)))),
    }
    if shown.counter:
        files[COUNTER] = (number, str(round(state.charge / 3.6e-3)))
    return files
