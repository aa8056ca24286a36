"""Which sensors a device has: from the files that were found on it to the sensor records of identity.json.

Pure functions. Paths begin with `{sysfs_root}` where a device keeps its `sys` elsewhere; `{pid}` is the
workload.
"""

from __future__ import annotations

import re

from pocketvlm.devices.accelerators import add_gpu, add_npu
from pocketvlm.devices.battery import add_battery
from pocketvlm.devices.found import Found, Sensors

_CPU_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
# Zone types by component, first match wins. Sources: device trees of Qualcomm, MediaTek, Tensor and Exynos
# phones.
_CLASSES = (
    ("battery", r"batt|^bms$|^vbat"),
    ("npu", r"nsp|cdsp|hvx|hmx|npu|tpu|apu|hexagon"),
    ("gpu", r"gpu|g3d|kgsl|mali"),
    ("skin", r"skin|shell|quiet|surface|back|front|xo[-_]?therm|chassis|case|board|soc_?therm_?virt"),
    ("pmic", r"^pm[a-z]*\d|pmic|bcl|charger|chg|usb|buck"),
    ("cpu", r"cpu|core|big|mid|little|lit\b|apc|cluster|tsens|soc|x86_pkg|k10temp|aoss|package"),
)
# Zones of Qualcomm's battery drivers that tell a charge, a current, a voltage or a level of alarm, in units
# of their own. Source: qcom/bcl_pmic5.c and bcl_soc.c of the public kernels.
_NO_TEMPERATURE = re.compile(r"socd?|[iv]bat.*|vph.*|.*bcl.*|.*[-_]lvl\d*")


def find(found: Found) -> Sensors:
    """Return the sensors of a device; the same files give the same records."""
    sensors = Sensors([], [])
    for add in (_cpu, _frequency, _memory, _workload):
        add(found, sensors)
    add_gpu(found, sensors)
    add_npu(found, sensors, any(component_of(zone) == "npu" for zone in _zones(found)))
    for add in (_thermal, add_battery, _rapl, _clock):
        add(found, sensors)
    return sensors


def _zones(found: Found) -> list[str]:
    return [line for _, line in found.below(r"/sys/class/thermal/thermal_zone\d+/type") if line]


def component_of(zone: str) -> str:
    """Return the component that a thermal zone's type speaks of."""
    return next((name for name, words in _CLASSES if re.search(words, zone.lower())), "other")


def _cpu(found: Found, sensors: Sensors) -> None:
    cores = [match[1] for match, _ in found.below(r"/proc/stat#(cpu\d*)")]
    if not cores:
        sensors.lack("cpu_time", "cpu", "/proc/stat cannot be read")
    for core in cores:
        label = "total" if core == "cpu" else core[3:]
        for number, state in enumerate(_CPU_TIMES, 1):
            sensors.add(
                f"cpu.{label}.{state}",
                "cpu",
                "/proc/stat",
                f"line:{core}:{number}",
                "cpu_time",
                f"{core}.{state}",
                "s",
                1 / found.ticks,
                "counter",
            )


def _frequency(found: Found, sensors: Sensors) -> None:
    base = r"/sys/devices/system/cpu/cpufreq/(policy\d+)/scaling_cur_freq"
    policies = list(found.below(base))
    if not policies:
        sensors.lack("cpu_frequency", "policy", "no cpufreq policy under /sys/devices/system/cpu/cpufreq")
    for match, line in policies:
        if line is None:
            sensors.lack("cpu_frequency", match[1], f"{match[0]} cannot be read")
        else:
            sensors.add(f"freq.{match[1]}", "cpu", match[0], "first", "cpu_frequency", match[1], "Hz", 1000.0)


def _clock(found: Found, sensors: Sensors) -> None:
    """Add how long each policy ran at each clock, in 10 ms (Documentation/cpu-freq/cpufreq-stats.rst)."""
    file = r"/sys/devices/system/cpu/cpufreq/(policy\d+)/stats/time_in_state"
    for match, _ in found.below(rf"{file}#(\d+)"):
        policy, khz = match.groups()
        path = match[0].partition("#")[0]
        sensors.add(
            f"clock.{policy}.{khz}",
            "clock",
            path,
            f"line:{khz}:1",
            "time_in_state",
            f"{policy}.{khz}",
            "s",
            0.01,
            "counter",
        )
    for match, line in found.below(file):
        if line is None:
            sensors.lack("time_in_state", match[1], f"{match[0]} cannot be read")


def _memory(found: Found, sensors: Sensors) -> None:
    for key, component in (("MemAvailable", "available"), ("MemFree", "free"), ("Cached", "cached")):
        if f"/proc/meminfo#{key}" in found.files:
            sensors.add(
                f"mem.{component}",
                "memory",
                "/proc/meminfo",
                f"line:{key}:1",
                "memory",
                component,
                "B",
                1024.0,
            )
        else:
            sensors.lack("memory", component, f"/proc/meminfo has no {key}")


def _workload(found: Found, sensors: Sensors) -> None:
    # Fields of proc_pid_stat(5) and proc_pid_statm(5).
    stat, second = "/proc/{pid}/stat", 1 / found.ticks
    for name, field, component in (("utime", 14, "user"), ("stime", 15, "system")):
        sensors.add(
            f"proc.{name}",
            "workload",
            stat,
            f"stat:{field}",
            "workload_cpu_time",
            component,
            "s",
            second,
            "counter",
        )
    for name, field, component in (("minflt", 10, "minor"), ("majflt", 12, "major")):
        sensors.add(
            f"proc.{name}",
            "workload",
            stat,
            f"stat:{field}",
            "workload_faults",
            component,
            "1",
            1.0,
            "counter",
        )
    sensors.add("proc.threads", "workload", stat, "stat:20", "workload_threads", "workload", "1", 1.0)
    sensors.add(
        "proc.rss",
        "workload",
        "/proc/{pid}/statm",
        "field:1",
        "workload_rss",
        "workload",
        "B",
        float(found.page_bytes),
    )


def _thermal(found: Found, sensors: Sensors) -> None:
    present: set[str] = set()
    for match, line in found.below(r"/sys/class/thermal/(thermal_zone\d+)/type"):
        path = f"/sys/class/thermal/{match[1]}/temp"
        zone = (line or match[1]).strip()
        component, temperature = component_of(zone), found.files.get(path)
        if _NO_TEMPERATURE.fullmatch(zone.lower()):
            sensors.lack(
                "temperature", f"{component}.{zone}", f"{path} tells something else than temperature"
            )
            continue
        scale = _temperature_scale(temperature)
        if scale is None:
            shown = "cannot be read" if temperature is None else f"says {temperature[:40]!r}"
            sensors.lack("temperature", f"{component}.{zone}", f"{path} {shown}")
            continue
        present.add(component)
        named = f"{component}.{zone}"
        sensors.add(f"thermal.{zone}", "thermal", path, "first", "temperature", named, "degC", scale)
    for component in ("cpu", "gpu", "npu", "skin", "battery"):
        if component not in present:
            sensors.lack(
                "temperature", component, f"no thermal zone of a {component} under /sys/class/thermal"
            )


def _temperature_scale(line: str | None) -> float | None:
    """Return degC for one unit: milli-degrees by the ABI, tenths or degrees on some; None: no reading."""
    match = re.match(r"\s*(-?\d+)\b", line or "")
    if not match or int(match[1]) < -30_000:
        # Sensors that are off answer with the lowest number they have, e.g. -40000 or -273000.
        return None
    value = abs(int(match[1]))
    return 1.0 if 0 < value < 150 else 0.1 if 150 <= value < 1000 else 0.001


def _rapl(found: Found, sensors: Sensors) -> None:
    domains = list(found.below(r"/sys/class/powercap/(intel-rapl:[\d:]+)/energy_uj"))
    if not domains:
        sensors.lack("energy", "rapl", "no RAPL domain under /sys/class/powercap")
    for match, line in domains:
        folder = f"/sys/class/powercap/{match[1]}"
        name = found.files.get(f"{folder}/name") or match[1]
        if line is None:
            sensors.lack("energy", f"rapl.{name}", f"{match[0]} can be read by root only")
            continue
        # The largest value it shows (Documentation/power/powercap/powercap.rst); the next one is 0.
        largest = found.files.get(f"{folder}/max_energy_range_uj") or ""
        sensors.add(
            f"rapl.{name}",
            "rapl",
            match[0],
            "first",
            "energy",
            f"rapl.{name}",
            "J",
            1e-6,
            "counter",
            wraps_at=int(largest) + 1 if re.fullmatch(r"[0-9]{1,20}", largest) else None,
        )
