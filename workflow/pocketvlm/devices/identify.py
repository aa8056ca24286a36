"""What a device is: identity.json of docs/formats.md, found by asking the device itself.

An identity is part of the key of every run, so two looks at one device must give the same: it holds no sample
values, no ports, and no path of this machine where a name will do (`{sysfs_root}`, `{qemu}`; `Device.places`
says what they stand for).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pocketvlm.devices import battery, calibrate
from pocketvlm.devices.accelerators import GPU_WORK
from pocketvlm.devices.base import Device, run
from pocketvlm.devices.found import Found
from pocketvlm.devices.root import privileged
from pocketvlm.devices.sensors import find
from pocketvlm.errors import DeviceError

_CLOCK_PERIOD_MS = 500
_NOTICE = (
    "emulated: arm64 code under qemu-user on this machine, behind a real adbd, with modelled sensors; "
    "no number here is a phone's"
)

# One line a file: `R<tab>path<tab>first line` where it can be read, `D<tab>path` where it is there and
# cannot. It uses nothing that toybox and mksh of a phone lack.
_SCRIPT = r"""
root=$1
show() {
    for file in "$@"; do
        [ -e "$file" ] || continue
        if value=$(cat "$file" 2>/dev/null) && [ -n "$value" ]; then
            printf 'R\t%s\t%s\n' "${file#"$root"}" "$(printf '%s\n' "$value" | head -n 1)"
        else
            printf 'D\t%s\n' "${file#"$root"}"
        fi
    done
}
# One line for each line of a table that begins with a word of its own: `R<tab>path#word<tab>1`.
words() {
    file=$1 pattern=$2
    [ -e "$file" ] || return 0
    found=$(sed -n "s/^ *\($pattern\) .*/\1/p" "$file" 2>/dev/null)
    if [ -n "$found" ]; then
        for word in $found; do printf 'R\t%s#%s\t1\n' "${file#"$root"}" "$word"; done
    else
        printf 'D\t%s\n' "${file#"$root"}"
    fi
}
show "$root"/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq
for policy in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
    words "$policy"/stats/time_in_state '[0-9][0-9]*'
done
show "$root"/sys/class/thermal/thermal_zone*/type "$root"/sys/class/thermal/thermal_zone*/temp
# `battery` by its name too: a phone may let the shell read below a folder that it does not let it list.
for supply in "$root"/sys/class/power_supply/battery "$root"/sys/class/power_supply/*; do
    show "$supply"/type "$supply"/scope
    # Chargers are not read: some answer slowly.
    kind=$(cat "$supply"/type 2>/dev/null)
    case "$kind/${supply##*/}" in Battery/* | */battery | */BAT*) ;; *) continue ;; esac
    show "$supply"/current_now "$supply"/voltage_now "$supply"/power_now "$supply"/status "$supply"/temp
    show "$supply"/charge_counter "$supply"/charge_now "$supply"/energy_now
done
show "$root"/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage "$root"/sys/class/kgsl/kgsl-3d0/gpuclk
show "$root"/sys/class/kgsl/kgsl-3d0/gpubusy "$root"/sys/class/devfreq/*/load
show "$root"/sys/kernel/ged/hal/gpu_utilization "$root"/sys/kernel/gpu/gpu_busy
show "$root"/sys/class/kgsl/kgsl-3d0/devfreq/cur_freq "$root"/sys/class/kgsl/kgsl-3d0/gpu_model
show "$root"/sys/class/misc/mali0/device/utilization "$root"/sys/class/misc/mali0/device/devfreq/*/cur_freq
show "$root"/sys/module/ged/parameters/gpu_loading "$root"/sys/class/devfreq/*/cur_freq
show "$root"/sys/class/powercap/intel-rapl*/name "$root"/sys/class/powercap/intel-rapl*/energy_uj
show "$root"/sys/class/powercap/intel-rapl*/max_energy_range_uj
if [ -e /dev/sysmon_subsystem_stats ]; then
    if [ -r /dev/sysmon_subsystem_stats ]; then printf 'R\t/dev/sysmon_subsystem_stats\tioctl\n'
    else printf 'D\t/dev/sysmon_subsystem_stats\n'; fi
fi
words "$root"/sys/kernel/debug/sysmon_subsystem_stats/master_cdsp_stats Average
show "$root"/sys/kernel/dsp_stats/cdsp/*
if command -v dumpsys >/dev/null; then
    table=$(dumpsys gpu --gpuwork 2>/dev/null | grep '^gpu_id uid total_active_duration_ns' | head -n 1)
    printf 'V\tgpu_work\t%s\n' "$table"
fi
printf 'V\tcores\t%s\n' "$(cat /sys/devices/system/cpu/present 2>/dev/null)"
sed -n 's/^\(cpu[0-9]*\) .*/R\t\/proc\/stat#\1\t1/p' /proc/stat 2>/dev/null
sed -n 's/^\([A-Za-z]*\):.*/R\t\/proc\/meminfo#\1\t1/p' /proc/meminfo 2>/dev/null
printf 'V\tmemory\t%s\n' "$(sed -n 's/^MemTotal: *\([0-9]*\) kB.*/\1/p' /proc/meminfo)"
printf 'V\tkernel\t%s\n' "$(uname -r)"
printf 'V\tmachine\t%s\n' "$(uname -m)"
printf 'V\tpage\t%s\n' "$(getconf PAGESIZE 2>/dev/null || getconf PAGE_SIZE 2>/dev/null)"
printf 'V\tticks\t%s\n' "$(getconf CLK_TCK 2>/dev/null)"
printf 'V\tos\t%s\n' "$(sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release 2>/dev/null)"
printf 'V\tcpu\t%s\n' "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)"
printf 'V\thardware\t%s\n' "$(sed -n 's/^Hardware[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)"
"""


def identify(
    device: Device, config: Mapping[str, Any], calibration: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a device is and which sensors are used on it: the content of identity.json.

    Args:
        device: the device.
        config: its file of `config/devices`.
        calibration: the content of calibration.json, whose scale the battery's current gets; without it
            that sensor is left out, for its unit and sign are never assumed.

    Raises:
        DeviceError: its answer is not what such a device answers.
    """
    found, values = _look(device, calibration)
    cores = _cores(found.files)
    properties = device.properties()
    soc = _soc(properties, values)
    if "soc" in config and not (soc or "").startswith(config["soc"]):
        named = f"{_model(properties, values)} with {soc or 'a chip that it does not name'}"
        raise DeviceError(
            f"{device.id} should have the chip {config['soc']}; what answers is {named}",
            where=f"config/devices/{device.id}.yaml: soc",
            do="Write the serial of the phone that is meant to transport.serial, or describe this one in a "
            "file of its own",
        )
    sensors = find(found)
    used_groups = dict.fromkeys(sensor["group"] for sensor in sensors.used)
    periods = {"clock": _CLOCK_PERIOD_MS, **config["periods_ms"]}
    return {
        "format": 1,
        "id": device.id,
        "kind": device.kind,
        "model": _model(properties, values),
        "soc": soc,
        "os": _os(device, properties, values),
        "kernel": values["kernel"],
        "cpus": len(cores),
        "memory_bytes": int(values.get("memory") or 0) * 1024,
        "page_bytes": found.page_bytes,
        "ticks_per_second": found.ticks,
        "target": config["target"],
        "exec_prefix": list(config["exec_prefix"]),
        # Only where it is so, so that identities and keys of other devices stay as they were.
        **({"root": True} if device.root else {}),
        "notice": _NOTICE if device.kind == "emulated" else None,
        "groups": {group: {"period_ms": periods[group]} for group in used_groups},
        "sensors": sensors.used,
        "missing": sensors.missing,
        # Only where there is such a source: other identities stay what they were.
        **({"snapshots": {"gpu_work": GPU_WORK.split()}} if found.gpu_work else {}),
    }


def calibration_of(device: Device, config: Mapping[str, Any]) -> dict[str, Any]:
    """Find out what the battery's current means: the content of calibration.json.

    A device without such a battery is asked once and left alone; any other is kept busy for some seconds.
    Raises what `identify` and `calibrate.calibrate` raise.
    """
    found, _ = _look(device, None)
    return calibrate.calibrate(
        device, config, battery.measured(found), battery.counter(found), len(_cores(found.files))
    )


def _look(device: Device, calibration: Mapping[str, Any] | None) -> tuple[Found, dict[str, str]]:
    """Return the files that a device shows, and what else it says of itself."""
    printed = run(device, privileged(device, ["sh", "-c", _SCRIPT, "sh", device.sysfs_root]), 60)
    files, values = parse(printed)
    # A core that is switched off for the moment has no line in /proc/stat, and is a core of the device.
    files |= {f"/proc/stat#cpu{core}": "1" for core in expand(values.get("cores", ""))}
    if not _cores(files) or "kernel" not in values:
        raise DeviceError(
            f"{device.id} does not answer as a Linux system with /proc: {printed[:200]!r}",
            do="Check what runs there; only Linux and Android devices can be measured",
        )
    # In words without numbers, for an identity is the same at every look.
    told = calibration or {"current_scale": None, "told": "nobody has looked what it means"}
    return Found(
        files=files,
        page_bytes=int(values.get("page") or 4096),
        ticks=int(values.get("ticks") or 100),
        current_scale=told["current_scale"],
        uncalibrated=str(told["told"]),
        gpu_work="gpu_work" in values,
    ), values


def _cores(files: Mapping[str, str | None]) -> list[str]:
    return [path for path in files if re.fullmatch(r"/proc/stat#cpu\d+", path)]


# What says which device it is. The sensors do not: zones of parts that sleep (a modem's) come and go.
_STABLE = (
    "id",
    "kind",
    "model",
    "soc",
    "os",
    "kernel",
    "cpus",
    "memory_bytes",
    "page_bytes",
    "target",
    "exec_prefix",
    "notice",
)


def stable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that must not change while the device stays the same one.

    Two looks at a device are compared by this and not by the whole: the sensors that answer, and so the
    groups and what is missing, may differ from look to look without another device or system being there.

    Args:
        identity: the content of identity.json.

    Raises:
        KeyError: it lacks one of these entries.
    """
    return {name: identity[name] for name in _STABLE}


def parse(printed: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return the files and the values of what the inspection printed; lines that are none are left out."""
    files: dict[str, str | None] = {}
    values: dict[str, str] = {}
    for line in printed.splitlines():
        match line.split("\t", 2):
            case ["R", path, first]:
                files[path] = first.strip()
            case ["D", path]:
                files[path] = None
            case ["V", name, value] if value.strip():
                values[name] = value.strip()[:200]
    return files, values


def expand(ranges: str) -> list[int]:
    """Return the numbers of a list as the kernel writes it: `0-3,6`; none for what is no such list."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges):
        return []
    parts = [part.partition("-")[::2] for part in ranges.split(",")]
    return [number for low, high in parts for number in range(int(low), int(high or low) + 1)]


def _model(properties: Mapping[str, str], values: Mapping[str, str]) -> str:
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    if properties.get("ro.pocketvlm.emulated") == "1":
        return model
    return f"{maker} {model}".strip() or values.get("cpu") or values["machine"]


def _soc(properties: Mapping[str, str], values: Mapping[str, str]) -> str | None:
    named = ("ro.soc.model", "ro.hardware.chipname", "ro.board.platform")
    if properties.get("ro.pocketvlm.emulated") == "1":
        # It names no chip of a phone's: what computes is this machine's processor.
        return values.get("hardware")
    found = next((properties[name] for name in named if properties.get(name)), None)
    return found or values.get("hardware")


def _os(device: Device, properties: Mapping[str, str], values: Mapping[str, str]) -> str:
    release = properties.get("ro.build.version.release")
    if release and properties.get("ro.pocketvlm.emulated") != "1":
        return f"Android {release} ({properties.get('ro.build.fingerprint', 'no fingerprint')})"
    found = values.get("os", "Linux")
    return f"none; the commands of {found}" if device.kind == "emulated" else found
