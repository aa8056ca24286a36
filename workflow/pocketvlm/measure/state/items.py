"""The single things of a device that are read, written and given back, and what their values may be.

An item is named by where it is: `global/airplane_mode_on` (a table and key of Android's settings),
`sys/devices/system/cpu/cpufreq/policy0/scaling_governor` (a file below the device's root of sysfs), or
`fixed_performance`. Names and values come from devices and from journals that may be damaged: nothing that
this table does not know gets into a command.

Sources: android.provider.Settings (keys; `settings get` prints `null` for what was never set), AOSP's
`ConnectivityService` (`cmd connectivity airplane-mode`) and `PowerManagerShellCommand` (`cmd power`),
android.os.BatteryManager (numbers of the battery's status), Documentation/admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pocketvlm.devices.base import Device, run
from pocketvlm.errors import DeviceError, TransientDeviceError

log = logging.getLogger(__name__)

NEVER_SET = "null"
"""What `settings get` prints for a setting that was never set; given back by `settings delete`."""

AIRPLANE = "global/airplane_mode_on"
BRIGHTNESS_MODE = "system/screen_brightness_mode"
BRIGHTNESS = "system/screen_brightness"
FIXED_PERFORMANCE = "fixed_performance"
ANIMATIONS = (
    "global/window_animation_scale",
    "global/transition_animation_scale",
    "global/animator_duration_scale",
)
POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
GOVERNOR, LOWEST, HIGHEST = "scaling_governor", "scaling_min_freq", "scaling_max_freq"

# What a setting may be, and what the phone does while it was never set (None: its maker's choice).
_SETTINGS: Mapping[str, tuple[str, str | None]] = {
    AIRPLANE: ("[01]", "0"),
    BRIGHTNESS_MODE: ("[01]", "0"),
    BRIGHTNESS: (r"[0-9]{1,5}", None),
    "system/screen_off_timeout": (r"-?[0-9]{1,10}", None),
    "global/stay_on_while_plugged_in": (r"[0-9]{1,2}", "0"),
    "global/heads_up_notifications_enabled": ("[01]", "1"),
    **dict.fromkeys(ANIMATIONS, (r"[0-9]{1,2}(\.[0-9]{1,6})?", "1")),
}

# Files that stop a phone from taking its charger's power, and their value then. Which a phone has is up to
# its maker; `input_suspend` is Qualcomm's. Source: the charging switches of Advanced Charging Controller.
CHARGING: Mapping[str, str] = {
    "sys/class/power_supply/battery/input_suspend": "1",
    "sys/class/qcom-battery/input_suspend": "1",
    "sys/class/power_supply/battery/charge_disable": "1",
    "sys/class/power_supply/battery/battery_charging_enabled": "0",
    "sys/class/power_supply/battery/charging_enabled": "0",
}
_FILES = {
    rf"sys/devices/system/cpu/cpufreq/policy[0-9]{{1,3}}/{GOVERNOR}": "[A-Za-z0-9_-]{1,32}",
    rf"sys/devices/system/cpu/cpufreq/policy[0-9]{{1,3}}/({LOWEST}|{HIGHEST})": "[0-9]{1,9}",
    "|".join(map(re.escape, CHARGING)): "[01]",
}
PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_STATUS = {"1": "Unknown", "2": "Charging", "3": "Discharging", "4": "Not charging", "5": "Full"}
_TIMEOUT_S = 20.0

# It prints what is asked for, a line each: S setting, F file, D a file that is there and cannot be read, A a
# process of an app, B the battery's status, P a program that is there. A phone's toybox and mksh have it all.
_LOOK = r"""# reads settings, clocks and the charger's input
root=$1
setting() {
    value=$(settings get "${1%%/*}" "${1#*/}" 2>/dev/null </dev/null | head -n 1 | head -c 200)
    if [ -n "$value" ]; then printf 'S\t%s\t%s\n' "$1" "$value"; fi
}
file() {
    for path in "$root"/$1; do
        [ -e "$path" ] || continue
        if value=$(head -n 1 "$path" 2>/dev/null | head -c 2000) && [ -n "$value" ]; then
            printf 'F\t%s\t%s\n' "${path#"$root"/}" "$value"
        else
            printf 'D\t%s\n' "${path#"$root"/}"
        fi
    done
}
apps() {
    ps -A -o ARGS 2>/dev/null | grep -E "^($1)([: ]|\$)" | while IFS= read -r line; do
        printf 'A\t%s\n' "$line"
    done
}
battery() {
    value=$(head -n 1 "$root/sys/class/power_supply/battery/status" 2>/dev/null)
    if [ -z "$value" ] && command -v dumpsys >/dev/null; then
        value=$(dumpsys battery 2>/dev/null </dev/null | sed -n 's/^ *status: *//p' | head -n 1)
    fi
    printf 'B\t%s\n' "$value"
}
program() { if command -v "$1" >/dev/null; then printf 'P\t%s\n' "$1"; fi; }
"""


@dataclass(frozen=True)
class Seen:
    """What one look at a device showed.

    Attributes:
        values: what each item, and each file besides, holds; what was not told is not in it.
        denied: files that are there and cannot be read.
        apps: the asked packages that run.
        programs: `settings`, `cmd`, `am`, as far as they are there.
        status: the battery's, in the words of the kernel; empty where it is not told.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    status: str = ""

    def below(self, folder: str, name: str) -> dict[str, str]:
        """Return the values of the files `name` in folders of a pattern such as `POLICIES`, by folder."""
        return {
            str(PurePosixPath(path).parent): value
            for path, value in self.values.items()
            if PurePosixPath(path).match(f"{folder}/{name}")
        }


def look(device: Device, names: Iterable[str], packages: Sequence[str] = ()) -> Seen:
    """Look at a device, by one command.

    Args:
        device: the device; where its file says `root: true`, what the shell may not read is read as root.
        names: items, and files or patterns of files below its root of sysfs.
        packages: the apps that are asked for.

    Raises:
        DeviceError, TransientDeviceError: it does not answer, or not as a device.
    """
    wanted = sorted(set(names))
    lines = [f"setting {shlex.quote(name)}" for name in wanted if name in _SETTINGS]
    files = [name for name in wanted if name.startswith("sys/")]
    lines += [f"file {shlex.quote(name)}" for name in files]
    known = [package for package in packages if PACKAGE.fullmatch(package)]
    if known:
        lines.append(f"apps {shlex.quote('|'.join(map(re.escape, known)))}")
    lines += ["battery", *(f"program {name}" for name in ("settings", "cmd", "am"))]
    argv = ["sh", "-c", _LOOK + "\n".join(lines), "sh", device.sysfs_root]
    # Clocks are everybody's to read; what is below a battery's folder may not even be seen to be there.
    hidden = any(name in CHARGING for name in files)
    seen = _parse(run(device, _best(device, argv) if hidden else argv, _TIMEOUT_S), known)
    if seen.denied and device.root and not hidden:
        seen = _parse(run(device, _best(device, argv), _TIMEOUT_S), known)
    return seen


def _best(device: Device, argv: list[str]) -> list[str]:
    """Return a command as root's where the device allows it; who gives no root is looked at without."""
    if not device.root:
        return argv
    try:
        return device.as_root(argv)
    except TransientDeviceError:
        raise
    except DeviceError as error:
        log.warning("%s", error)
        return argv


def _parse(printed: str, packages: Sequence[str]) -> Seen:
    values: dict[str, str] = {}
    denied, apps, programs, status = set(), set(), set(), ""
    for line in printed[:1_000_000].splitlines():
        match line.split("\t", 2):
            case ["S" | "F", name, value] if value.strip():
                values[name] = value.strip()
            case ["D", name]:
                denied.add(name)
            case ["A", name]:
                apps |= {each for each in packages if re.match(re.escape(each) + r"([: ]|$)", name)}
            case ["P", name]:
                programs.add(name)
            case ["B", value]:
                status = _STATUS.get(value.strip(), value.strip())[:40]
    return Seen(values, frozenset(denied), frozenset(apps), frozenset(programs), status)


def known(item: str) -> bool:
    """Whether an item is of this table."""
    return _pattern(item) is not None


def valid(item: str, value: object) -> bool:
    """Whether a value may be given to an item: nothing else ever gets into a command."""
    pattern = _pattern(item)
    if pattern is None or not isinstance(value, str):
        return False
    return (value == NEVER_SET and item in _SETTINGS) or re.fullmatch(pattern, value) is not None


def _pattern(item: str) -> str | None:
    if item == FIXED_PERFORMANCE:
        return "true|false"
    if item in _SETTINGS:
        return _SETTINGS[item][0]
    return next((pattern for name, pattern in _FILES.items() if re.fullmatch(name, item)), None)


def needs_root(item: str) -> bool:
    """Whether an item can be written by root alone."""
    return item.startswith("sys/")


def effective(item: str, value: str | None) -> str | None:
    """Return what the device does by a value: that of a setting that was never set is its default."""
    if value == NEVER_SET and item in _SETTINGS:
        return _SETTINGS[item][1]
    return value


def same(item: str, found: str | None, value: str) -> bool:
    """Whether an item that reads `found` is as `value` wants it; numbers are compared as numbers."""
    if found is None:
        return False
    if NEVER_SET in (found, value):
        return found == value
    try:
        return float(found) == float(value)
    except ValueError:
        return found == value


def commands(item: str, value: str, sysfs_root: str) -> list[list[str]]:
    """Return the commands that give a valid value to an item, one after the other.

    Raises:
        ValueError: item or value is not of this table.
    """
    if not valid(item, value):
        raise ValueError(f"{item!r} cannot be given {value!r}")
    if item == FIXED_PERFORMANCE:
        return [["cmd", "power", "set-fixed-performance-mode-enabled", value]]
    if item.startswith("sys/"):
        return [["sh", "-c", 'printf "%s\\n" "$2" >"$1"', "sh", f"{sysfs_root}/{item}", value]]
    table, _, key = item.partition("/")
    delete = [["settings", "delete", table, key]] if value == NEVER_SET else []
    if item == AIRPLANE:
        # The setting alone would be shown and switch no radio.
        choice = "enable" if value == "1" else "disable"
        return [["cmd", "connectivity", "airplane-mode", choice], *delete]
    return delete or [["settings", "put", table, key, value]]


def write(device: Device, item: str, value: str) -> str:
    """Give a value to an item; return what the device said against it, empty if nothing.

    Raises:
        ValueError: item or value is not of this table.
        TransientDeviceError: the device does not answer.
    """
    for argv in commands(item, value, device.sysfs_root):
        try:
            result = (device.root_shell if needs_root(item) else device.shell)(argv, _TIMEOUT_S)
        except TransientDeviceError:
            raise
        except DeviceError as error:
            return plain(error.what)
        if result.status != 0:
            said = (result.stderr.strip() or result.stdout.strip()).splitlines()
            return plain(said[0] if said else f"ended with status {result.status}")
    return ""


def by_hand(device: Device, item: str, value: str) -> str:
    """Return what a person types to give a value to an item."""
    # One word for the phone's shell each, as the commands of this project have it.
    shells = [shlex.join(argv) for argv in commands(item, value, device.sysfs_root)]
    if item.startswith("sys/"):
        path = shlex.quote(f"{device.sysfs_root}/{item}")
        return f"adb shell su -c {shlex.quote(f'echo {value} > {path}')}"
    return "; ".join(f"adb shell {command}" for command in shells)


def arranged(changes: Mapping[str, str], seen: Seen) -> list[tuple[str, str]]:
    """Return changes in an order in which no policy's least frequency is ever above its greatest.

    Args:
        changes: value by item.
        seen: what the items are now.
    """
    left = dict(changes)
    ordered: list[tuple[str, str]] = []
    for item in changes:
        if item not in left:
            continue
        folder = str(PurePosixPath(item).parent)
        low, high = f"{folder}/{LOWEST}", f"{folder}/{HIGHEST}"
        pair = [(name, left[name]) for name in (high, low) if name in left and item in (low, high)]
        if not pair:
            pair = [(item, left[item])]
        elif high in left and int(left[high]) < number(seen.values.get(low), 0):
            pair.reverse()
        ordered += pair
        for name, _ in pair:
            del left[name]
    return ordered


def number(text: str | None, otherwise: int) -> int:
    """Return the number that a file or setting holds, or another where it holds none."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,10}", text) else otherwise


def plain(text: str) -> str:
    """Return one short line of what a device said, without control characters and what parts reasons."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.replace(";", ",").split())[:160]
