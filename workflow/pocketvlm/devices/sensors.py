"""Which sensors a device has: from the files that were found on it to the sensor records of identity.json.

Pure functions. Paths begin with `{sysfs_root}` where a device keeps its `sys` elsewhere; `{pid}` is the
workload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ROOT = "{sysfs_root}"
_SUPPLIES = "/sys/class/power_supply"
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
# What an ioctl on the Hexagon's monitor gives. Source: sysmon_subsystem_stats of the public kernels.
_SYSMON = (
    ("hvx", "0x80047101", "npu_busy", "%"),
    ("hmx", "0x80047102", "npu_busy", "%"),
    ("q6", "0x80047103", "npu_load", "KCPS"),
)


@dataclass(frozen=True)
class Found:
    """What was found on a device.

    Attributes:
        files: first line by path below the device's own root (`/sys/…`, `/proc/…`); None where the file is
            there and cannot be read.
        page_bytes: size of a memory page.
        ticks: clock ticks a second of /proc/stat.
        current_scale: ampere for one unit of current_now, positive while discharging.
    """

    files: Mapping[str, str | None]
    page_bytes: int
    ticks: int
    current_scale: float

    def below(self, pattern: str) -> Iterator[tuple[re.Match[str], str | None]]:
        """Yield the files whose whole path matches, in the order of their numbers."""
        hits = [(match, line) for path, line in self.files.items() if (match := re.fullmatch(pattern, path))]
        yield from sorted(hits, key=lambda hit: [_natural(part) for part in hit[0].groups()])


@dataclass
class Sensors:
    """The sensor records and what is missing, both as identity.json has them."""

    used: list[dict[str, Any]]
    missing: list[dict[str, str]]

    def add(
        self,
        name: str,
        group: str,
        path: str,
        select: str,
        quantity: str,
        component: str,
        unit: str,
        scale: float | None,
        kind: str = "gauge",
        wraps_at: int | None = None,
    ) -> None:
        """Take a sensor into use; of two that would have one name, the second gets a number.

        `wraps_at` is the raw value at which a counter begins again at 0, None where it is not known.
        """
        clean = re.sub(r"[^a-z0-9_.-]", "_", name.lower())[:80]
        taken = {sensor["name"] for sensor in self.used}
        number, unique = 2, clean
        while unique in taken:
            unique, number = f"{clean}.{number}", number + 1
        self.used.append(
            {
                "name": unique,
                "group": group,
                # Only what lies in sysfs is elsewhere on an emulated phone.
                "path": (ROOT + path) if path.startswith("/sys/") else path,
                "select": select,
                "quantity": quantity,
                "component": component,
                "unit": unit,
                "scale": scale,
                "kind": kind,
                **({} if wraps_at is None else {"range": wraps_at}),
            }
        )

    def lack(self, quantity: str, component: str, reason: str) -> None:
        """Note what this device does not show, and why."""
        self.missing.append({"quantity": quantity, "component": component, "reason": reason})


def find(found: Found) -> Sensors:
    """Return the sensors of a device; the same files give the same records."""
    sensors = Sensors([], [])
    for add in (_cpu, _frequency, _memory, _workload, _gpu, _npu, _thermal, _battery, _rapl):
        add(found, sensors)
    return sensors


def component_of(zone: str) -> str:
    """Return the component that a thermal zone's type speaks of."""
    return next((name for name, words in _CLASSES if re.search(words, zone.lower())), "other")


def _natural(text: str | None) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"(\d+)", text or "")
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


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


# Candidates in order of preference: path, select, scale.
_GPU_BUSY = (
    ("/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage", 1.0),
    ("/sys/class/misc/mali0/device/utilization", 1.0),
    ("/sys/module/ged/parameters/gpu_loading", 1.0),
)
_GPU_FREQUENCY = (
    r"/sys/class/kgsl/kgsl-3d0/gpuclk",
    r"/sys/class/kgsl/kgsl-3d0/devfreq/cur_freq",
    r"/sys/class/misc/mali0/device/devfreq/[^/]+/cur_freq",
    r"/sys/class/devfreq/[^/]*(?:mali|gpu)[^/]*/cur_freq",
)


def _gpu(found: Found, sensors: Sensors) -> None:
    seen = [path for path, _ in _GPU_BUSY if path in found.files]
    for path, scale in _GPU_BUSY:
        if found.files.get(path) is not None:
            sensors.add("gpu.busy", "gpu", path, "first", "gpu_busy", "gpu", "%", scale)
            break
    else:
        reason = f"{seen[0]} cannot be read" if seen else "no load of a GPU under /sys/class/kgsl or mali0"
        sensors.lack("gpu_busy", "gpu", reason)
    denied = None
    for pattern in _GPU_FREQUENCY:
        for match, line in found.below(pattern):
            if line is not None:
                sensors.add("gpu.clock", "gpu", match[0], "first", "gpu_frequency", "gpu", "Hz", 1.0)
                return
            denied = match[0]
    sensors.lack(
        "gpu_frequency", "gpu", f"{denied} cannot be read" if denied else "no clock of a GPU in sysfs"
    )


def _npu(found: Found, sensors: Sensors) -> None:
    node = "/dev/sysmon_subsystem_stats"
    if found.files.get(node) is not None:
        for name, request, quantity, unit in _SYSMON:
            sensors.add(f"npu.{name}", "npu", node, f"ioctl:{request}", quantity, "npu", unit, 1.0)
    elif node in found.files:
        sensors.lack("npu_busy", "npu", f"{node} cannot be read")
    else:
        sensors.lack("npu_busy", "npu", "no node of an NPU's load is known here")


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


def _battery(found: Found, sensors: Sensors) -> None:
    names, peripherals = _batteries(found)
    if not names:
        whose = f"; {', '.join(peripherals)} is a peripheral's" if peripherals else ""
        for quantity in ("current", "voltage", "charge", "battery_status"):
            sensors.lack(quantity, "battery", f"no battery of the device under {_SUPPLIES}{whose}")
        return
    base = f"{_SUPPLIES}/{names[0]}"
    # Phones count charge in charge_counter, laptops in charge_now; both are in uAh (sysfs-class-power).
    charge = "charge_now" if found.files.get(f"{base}/charge_counter") is None else "charge_counter"
    rows: tuple[tuple[str, str, str, str, str, float | None, str], ...] = (
        ("current_now", "first", "current", "battery", "A", found.current_scale, "gauge"),
        ("voltage_now", "first", "voltage", "battery", "V", 1e-6, "gauge"),
        (charge, "first", "charge", "battery", "Ah", 1e-6, "counter"),
        ("temp", "first", "temperature", "battery.power_supply", "degC", 0.1, "gauge"),
        ("status", "text", "battery_status", "battery", "text", None, "text"),
    )
    packs = [name for name in names if name.startswith("BAT")]
    for file, select, quantity, component, unit, scale, kind in rows:
        path = f"{base}/{file}"
        if quantity == "current" and names[0] in packs and len(packs) > 1:
            sensors.lack(
                quantity, component, f"{' and '.join(packs)} share the load and no sensor is their sum"
            )
        elif found.files.get(path) is None:
            sensors.lack(quantity, component, _why_not(found, base, file))
        else:
            name = f"battery.{file.removesuffix('_now')}"
            sensors.add(name, "battery", path, select, quantity, component, unit, scale, kind)


def _batteries(found: Found) -> tuple[list[str], list[str]]:
    """Return the supplies that are the device's own batteries, the one to read first, and the peripherals'.

    Source: Documentation/ABI/testing/sysfs-class-power: `type` is Battery for both, and `scope` Device for a
    battery that powers a peripheral (a mouse) only.
    """
    own: list[str] = []
    peripherals: list[str] = []
    for name in sorted({match[1] for match, _ in found.below(rf"{_SUPPLIES}/([^/]+)/[^/]+")}):
        # The names of Android's and of ACPI's batteries speak for them where the type does not.
        named = name == "battery" or name.startswith("BAT")
        if not named and found.files.get(f"{_SUPPLIES}/{name}/type") != "Battery":
            continue
        scope = found.files.get(f"{_SUPPLIES}/{name}/scope")
        (peripherals if scope == "Device" else own).append(name)
    own.sort(key=lambda name: (name != "battery", not name.startswith("BAT"), _natural(name)))
    return own, peripherals


def _why_not(found: Found, base: str, file: str) -> str:
    path = f"{base}/{file}"
    if path in found.files:
        return f"{path} cannot be read"
    # Laptops may tell watt and watt-hours instead, from which no current or charge can be had exactly.
    instead = {"current_now": "power_now", "charge_now": "energy_now"}.get(file)
    shown = f"; {instead} is, which is not used" if instead and f"{base}/{instead}" in found.files else ""
    return f"{path} is not there{shown}"


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
