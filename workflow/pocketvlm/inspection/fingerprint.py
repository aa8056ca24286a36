"""What a device is beyond its identity: build, clusters, storage, root, SELinux, battery, permissions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pocketvlm.devices.base import Device, run
from pocketvlm.devices.root import privileged

# One line a value: `name<tab>value`; the value is empty where the file is there and cannot be read. Nothing
# in it needs more than toybox and mksh have.
_SCRIPT = r"""
root=$1 folder=$2 battery=$3
one() {
    [ -e "$2" ] || return 0
    printf '%s\t%s\n' "$1" "$(head -n 1 "$2" 2>/dev/null)"
}
for policy in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
    for file in related_cpus cpuinfo_min_freq cpuinfo_max_freq \
        scaling_min_freq scaling_max_freq scaling_governor; do
        one "cluster.${policy##*/}.$file" "$policy/$file"
    done
done
for file in health technology cycle_count capacity status charge_full charge_full_design; do
    one "battery.$file" "$battery/$file"
done
one gpu.kgsl "$root"/sys/class/kgsl/kgsl-3d0/gpu_model
one gpu.mali "$root"/sys/class/misc/mali0/device/gpuinfo
one selinux.enforce "$root"/sys/fs/selinux/enforce
printf 'selinux.mode\t%s\n' "$(getenforce 2>/dev/null)"
printf 'uid\t%s\n' "$(id -u)"
printf 'su\t%s\n' "$(command -v su)"
printf 'swap\t%s\n' "$(sed -n 's/^SwapTotal: *\([0-9]*\) kB.*/\1/p' /proc/meminfo)"
printf 'storage\t%s\n' "$(df -kP "$folder" 2>/dev/null | tail -n 1)"
if command -v dumpsys >/dev/null; then
    dumpsys battery 2>/dev/null | sed -n 's/^ *\(level\|health\): *\([0-9]*\)$/dumpsys.\1\t\2/p'
fi
exit 0
"""
# android.os.BatteryManager, BATTERY_HEALTH_*.
_HEALTH = {2: "Good", 3: "Overheat", 4: "Dead", 5: "Over voltage", 6: "Unspecified failure", 7: "Cold"}
_BUILD = {
    "build": "ro.build.fingerprint",
    "build_id": "ro.build.display.id",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "security_patch": "ro.build.version.security_patch",
}
_ASK_AT_ONCE = 100


def fingerprint(device: Device, identity: Mapping[str, Any], battery: str) -> dict[str, Any]:
    """Return what a device is: the entry `fingerprint` of profile.json; null where it does not tell.

    Args:
        device: the device, held.
        identity: its identity.json.
        battery: folder of its battery on the device, which need not be there.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
    """
    script = ["sh", "-c", _SCRIPT, "sh", device.sysfs_root, device.remote_dir, battery]
    return describe(identity, parse(run(device, privileged(device, script), 60)), device.properties())


def parse(printed: str) -> dict[str, str | None]:
    """Return the values of what the script printed; None for one that could not be read."""
    found: dict[str, str | None] = {}
    for line in printed.splitlines():
        name, tab, value = line.partition("\t")
        if tab and re.fullmatch(r"[a-z_.0-9]{1,80}", name):
            found[name] = value.strip()[:200] or None
    return found


def describe(
    identity: Mapping[str, Any], values: Mapping[str, str | None], properties: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fingerprint that an identity, the script's values and Android's properties give."""
    mode = values.get("selinux.mode")
    enforcing = {"1": "Enforcing", "0": "Permissive"}.get(values.get("selinux.enforce") or "")
    return {
        **{name: identity[name] for name in ("model", "soc", "os", "kernel", "cpus", "memory_bytes")},
        "gpu": values.get("gpu.kgsl") or values.get("gpu.mali") or properties.get("ro.hardware.egl"),
        **{name: properties.get(key) for name, key in _BUILD.items()},
        "swap_bytes": _times(values.get("swap"), 1024),
        "storage": _storage(values.get("storage")),
        "clusters": _clusters(values),
        "root": {
            "uid": _times(values.get("uid"), 1),
            "su": values.get("su"),
            "used": bool(identity.get("root", False)),
        },
        "selinux": mode or enforcing,
        "battery": _battery(values),
    }


def _times(text: str | None, factor: int) -> int | None:
    return int(text) * factor if text and re.fullmatch(r"\d{1,18}", text) else None


def _storage(line: str | None) -> dict[str, int] | None:
    """Return size and free space of a line of `df -kP`, whose first and last words may hold spaces."""
    found = re.search(r"\s(\d+)\s+\d+\s+(\d+)\s+\d+%", line or "")
    return {"bytes": int(found[1]) * 1024, "free_bytes": int(found[2]) * 1024} if found else None


def _clusters(values: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the clusters in the order of their first core; clocks in kHz."""
    names = {name.split(".")[1] for name in values if name.startswith("cluster.")}
    told = [
        {
            "policy": name,
            "cpus": values.get(f"cluster.{name}.related_cpus"),
            "governor": values.get(f"cluster.{name}.scaling_governor"),
            **{
                key: _times(values.get(f"cluster.{name}.{file}"), 1)
                for key, file in (
                    ("min_khz", "cpuinfo_min_freq"),
                    ("max_khz", "cpuinfo_max_freq"),
                    ("limit_min_khz", "scaling_min_freq"),
                    ("limit_max_khz", "scaling_max_freq"),
                )
            },
        }
        for name in names
    ]
    return sorted(told, key=lambda cluster: (len(str(cluster["policy"])), str(cluster["policy"])))


def _battery(values: Mapping[str, str | None]) -> dict[str, Any] | None:
    """Return what the battery says of itself; None where there is none. Charges are in uAh by the ABI."""
    if not any(name.startswith(("battery.", "dumpsys.")) for name in values):
        return None
    code = _times(values.get("dumpsys.health"), 1)
    full, design = (
        _times(values.get(f"battery.{name}"), 1) for name in ("charge_full", "charge_full_design")
    )
    return {
        "health": values.get("battery.health") or _HEALTH.get(code or 0),
        "technology": values.get("battery.technology"),
        "status": values.get("battery.status"),
        "cycles": _times(values.get("battery.cycle_count"), 1),
        "level_percent": _times(values.get("battery.capacity") or values.get("dumpsys.level"), 1),
        "full_mah": None if full is None else full / 1000,
        "design_mah": None if design is None else design / 1000,
    }


def permissions(device: Device, paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return who may read files, by path: `{"mode": "-r--r--r--", "owner": "root:system"}` as `ls -l` says.

    A path that is not there, or whose folder may not be looked into, is left out.
    """
    found: dict[str, dict[str, str]] = {}
    script = 'for file; do printf "%s\\t%s\\n" "$file" "$(ls -ld "$file" 2>/dev/null)"; done'
    unique = list(dict.fromkeys(paths))
    for first in range(0, len(unique), _ASK_AT_ONCE):
        part = unique[first : first + _ASK_AT_ONCE]
        listing = run(device, privileged(device, ["sh", "-c", script, "sh", *part]), 60)
        for line in listing.splitlines():
            path, _, listed = line.partition("\t")
            words = listed.split()
            if len(words) > 3 and re.fullmatch(r"[-a-z]{2}[-rwxsStT]{8}[.+@]?", words[0]):
                found[path] = {"mode": words[0][:10], "owner": f"{words[2]}:{words[3]}"[:80]}
    return found
