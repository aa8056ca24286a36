"""The state that an experiment wants its devices in, as far as they tell it. Nothing here changes a device.

A wanted state is part of the key of a run: runs that were made without asking do not count as made in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.devices.base import Device, run
from pocketvlm.errors import DeviceError

# Android's settings by name: table, key, what its numbers mean, and how a person sets it.
# Source: android.provider.Settings: Global.AIRPLANE_MODE_ON, System.SCREEN_BRIGHTNESS_MODE.
_SETTINGS = {
    "airplane_mode": (
        "global airplane_mode_on",
        "adb shell cmd connectivity airplane-mode {enable|disable}",
    ),
    "automatic_brightness": (
        "system screen_brightness_mode",
        "adb shell settings put system screen_brightness_mode {1|0}",
    ),
}
_BRIGHTNESS = "system screen_brightness"
_TIMEOUT_S = 20.0


def read_state(device: Device) -> dict[str, Any]:
    """Return what a device says about its state.

    Returns:
        `airplane_mode` and `automatic_brightness` (True, False), `brightness` (a number of the device's own
        scale) and `uid` (who commands run as, 0 for root); each is None where the device does not tell it.
    """
    asked = {**{name: key for name, (key, _) in _SETTINGS.items()}, "brightness": _BRIGHTNESS}
    # A small Debian has no `settings`: the line then ends after the name.
    lines = [f'echo "{name} $(settings get {key} 2>/dev/null | head -c 20)"' for name, key in asked.items()]
    printed = run(device, ["sh", "-c", "; ".join([*lines, 'echo "uid $(id -u 2>/dev/null)"'])], _TIMEOUT_S)
    told = dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)
    numbers = {name: _number(told.get(name, "")) for name in (*asked, "uid")}
    truths = {name: None if numbers[name] is None else numbers[name] == 1 for name in _SETTINGS}
    return {**truths, "brightness": numbers["brightness"], "uid": numbers["uid"]}


def check_state(device: Device, wanted: Mapping[str, bool]) -> dict[str, Any]:
    """Return the state of a device that is as an experiment wants it.

    Args:
        device: the device.
        wanted: the experiment's `state`; what it does not name may be as it is.

    Raises:
        DeviceError: it is in another state, or does not tell.
    """
    state = read_state(device)
    wrong = {name: value for name, value in wanted.items() if state[name] is not value}
    if wrong:
        told = ", ".join(
            f"{name} is {_word(state[name])} and should be {_word(value)}" for name, value in wrong.items()
        )
        commands = "; ".join(_command(name, value) for name, value in wrong.items())
        raise DeviceError(
            f"{device.id} is not in the state that the experiment wants: {told}",
            do=f"Set it on the device ({commands}), or take it out of the experiment's state",
        )
    return state


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and text.isascii() else None


def _word(value: bool | None) -> str:
    return "not told" if value is None else "on" if value else "off"


def _command(name: str, value: bool) -> str:
    head, _, choice = _SETTINGS[name][1].partition("{")
    yes, _, no = choice.rstrip("}").partition("|")
    return head + (yes if value else no)
