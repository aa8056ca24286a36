"""What an experiment may want of its devices' state: each want in items of the device, and how it is judged.

Which metrics a want shapes is said in `analyse/comparable.py`: that decides about tables, not about runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketvlm.devices.base import Device
from pocketvlm.measure.state import items
from pocketvlm.measure.state.items import (
    AIRPLANE,
    ANIMATIONS,
    BRIGHTNESS,
    BRIGHTNESS_MODE,
    CHARGING,
    FIXED_PERFORMANCE,
    GOVERNOR,
    HIGHEST,
    LOWEST,
    POLICIES,
    Seen,
)

HEADS_UP = "global/heads_up_notifications_enabled"
STAY_ON = "global/stay_on_while_plugged_in"
TIMEOUT = "system/screen_off_timeout"
# BatteryManager.BATTERY_PLUGGED_AC | _USB | _WIRELESS.
_ANY_CHARGER = 7
# A device that is reached over the network: `address:port`, or a name that adb found by itself.
_NETWORK = re.compile(r".*:[0-9]{1,5}|adb-.*\._adb-tls-connect\._tcp\.?")


class UnmetError(Exception):
    """A want that a device cannot meet; the text says why."""


@dataclass(frozen=True)
class Want:
    """One thing that an experiment may want.

    Attributes:
        looks_at: items, and patterns of files, that tell how it is.
        targets: from the wanted value and what was seen, the value that each item must have.
            Raises UnmetError where the device has no such thing.
        value: from what an item or several hold, what is recorded as found or set.
    """

    looks_at: tuple[str, ...]
    targets: Callable[[Any, Seen], dict[str, str]]
    value: Callable[[Seen], Any]


@dataclass(frozen=True)
class Plan:
    """What is to be done for the wanted state of one device.

    Attributes:
        targets: by want, the value that each of its items must have.
        unmet: by want, why it cannot be met.
        found: by want, how it was before.
        stop: packages that run and are to be stopped.
        saved: what each item of the targets was before, to be given back.
    """

    targets: Mapping[str, Mapping[str, str]]
    unmet: Mapping[str, str]
    found: Mapping[str, Any]
    stop: tuple[str, ...] = ()
    saved: Mapping[str, str] = field(default_factory=dict)


def looks_at(wanted: Mapping[str, Any]) -> list[str]:
    """Return what has to be looked at to know how the wanted things are."""
    return sorted({name for want in wanted if want in WANTS for name in WANTS[want].looks_at})


def plan(device: Device, wanted: Mapping[str, Any], seen: Seen) -> Plan:
    """Decide what is to be set on a device, and what cannot be.

    Args:
        device: the device.
        wanted: the experiment's `state`, as its schema has it.
        seen: how the device is now.
    """
    targets: dict[str, Mapping[str, str]] = {}
    unmet: dict[str, str] = {}
    found: dict[str, Any] = {}
    for name, want in WANTS.items():
        if name not in wanted:
            continue
        found[name] = want.value(seen)
        try:
            goal = want.targets(wanted[name], seen)
            _possible(device, goal, seen)
            targets[name] = goal
        except UnmetError as why:
            unmet[name] = str(why)
    _contradictions(wanted, targets, unmet, seen)
    stop: tuple[str, ...] = ()
    if "stop_apps" in wanted:
        found["stop_apps"] = sorted(seen.apps)
        if "am" in seen.programs:
            stop = tuple(sorted(seen.apps))
        else:
            unmet["stop_apps"] = "the device has no `am`, Android's program that stops apps"
    saved = {item: seen.values[item] for goal in targets.values() for item in goal if item in seen.values}
    if any(FIXED_PERFORMANCE in goal for goal in targets.values()):
        # It cannot be asked for; a phone has it off unless somebody gave this very command since it started.
        saved[FIXED_PERFORMANCE] = "false"
    return Plan(targets, unmet, found, stop, saved)


def _possible(device: Device, goal: Mapping[str, str], seen: Seen) -> None:
    """Raise UnmetError where an item is not as wanted and cannot be set, or could not be given back."""
    for item, value in goal.items():
        before = seen.values.get(item)
        if item == FIXED_PERFORMANCE:
            continue
        if items.same(item, items.effective(item, before), value):
            continue
        if not items.valid(item, value):
            raise UnmetError(f"{value!r} is nothing that {item} can be given")
        if items.needs_root(item) and not device.root:
            raise UnmetError(
                f"needs root: {item} is {before or 'not told'}, and the device's file does not say root: true"
            )
        if not items.valid(item, before):
            told = "not told" if before is None else f"{items.plain(before)!r}"
            raise UnmetError(f"{item} is {told}, which could not be given back")
        if (
            item == AIRPLANE
            and value == "1"
            and device.kind == "phone"
            and _NETWORK.fullmatch(device.serial or "")
        ):
            raise UnmetError("the phone is reached over its network, which airplane mode would cut")


def _contradictions(
    wanted: Mapping[str, Any], targets: dict[str, Mapping[str, str]], unmet: dict[str, str], seen: Seen
) -> None:
    """Take out what cannot be had together, before anything is set."""
    if wanted.get("automatic_brightness") is True and "brightness" in wanted:
        targets.pop("brightness", None)
        unmet["brightness"] = "the phone sets it itself, for automatic brightness is wanted, too"
    low, high = "min_frequency_percent", "max_frequency_percent"
    if low in wanted and high in wanted and wanted[low] > wanted[high]:
        for name in (low, high):
            targets.pop(name, None)
            unmet[name] = f"the least is to be {wanted[low]} % and the greatest {wanted[high]} %"
    if low in targets and high in targets:
        # The nearest clocks of both may pass each other; the greatest is the stricter promise.
        greatest = {item.replace(HIGHEST, LOWEST): int(value) for item, value in targets[high].items()}
        targets[low] = {
            item: str(min(int(value), greatest.get(item, int(value)))) for item, value in targets[low].items()
        }
        return
    for name, other, above in ((low, HIGHEST, True), (high, LOWEST, False)):
        for item, value in dict(targets.get(name, {})).items():
            bound = items.number(seen.values.get(f"{item.rsplit('/', 1)[0]}/{other}"), int(value))
            if (int(value) > bound) if above else (int(value) < bound):
                unmet[name] = f"{item} would be {value}, beyond {other}, which is {bound}"
                targets.pop(name)
                break


def _need_settings(seen: Seen) -> None:
    if "settings" not in seen.programs:
        raise UnmetError("the device has no `settings`, Android's program for them")


def _setting(*names: str, written: Callable[[Any], str], value: Callable[[str], Any]) -> Want:
    """A want that is the same value in one or several of Android's settings."""

    def targets(wanted: Any, seen: Seen) -> dict[str, str]:
        _need_settings(seen)
        return dict.fromkeys(names, written(wanted))

    return Want(names, targets, lambda seen: _told(seen, names, value))


def _told(seen: Seen, names: tuple[str, ...], value: Callable[[str], Any]) -> Any:
    """Return what items say, one value where they agree; None where nothing is told."""
    told = {name.rsplit("/", 1)[1]: items.effective(name, seen.values.get(name)) for name in names}
    read = {name: None if text is None else value(text) for name, text in told.items()}
    return next(iter(read.values())) if len({str(each) for each in read.values()}) == 1 else read


def _truth(text: str) -> bool | str:
    return text == "1" if text in ("0", "1") else items.plain(text)


def _number(text: str) -> float | int | str:
    if re.fullmatch(r"-?[0-9]{1,12}(\.0+)?", text):
        return int(float(text))
    return float(text) if re.fullmatch(r"-?[0-9]{1,12}\.[0-9]{1,12}", text) else items.plain(text)


def _airplane(wanted: bool, seen: Seen) -> dict[str, str]:
    _need_settings(seen)
    if "cmd" not in seen.programs:
        raise UnmetError("the device has no `cmd`, Android's program that switches airplane mode")
    return {AIRPLANE: _switch(wanted)}


def _switch(wanted: bool) -> str:
    return "1" if wanted else "0"


def _brightness(wanted: int, seen: Seen) -> dict[str, str]:
    _need_settings(seen)
    # While it is automatic the phone sets the brightness itself.
    return {BRIGHTNESS_MODE: "0", BRIGHTNESS: str(wanted)}


def _stay_on(wanted: bool, seen: Seen) -> dict[str, str]:
    _need_settings(seen)
    now = items.number(seen.values.get(STAY_ON), 0)
    return {STAY_ON: "0" if not wanted else str(now | _ANY_CHARGER)}


def _stays_on(seen: Seen) -> bool | int | None:
    text = items.effective(STAY_ON, seen.values.get(STAY_ON))
    now = items.number(text, -1)
    if now < 0:
        return None
    return True if now & _ANY_CHARGER == _ANY_CHARGER else now or False


def _fixed_performance(wanted: bool, seen: Seen) -> dict[str, str]:
    if "cmd" not in seen.programs:
        raise UnmetError("the device has no `cmd`, Android's program that fixes performance")
    return {FIXED_PERFORMANCE: "true" if wanted else "false"}


def _governor(wanted: str, seen: Seen) -> dict[str, str]:
    policies = _policies(seen, GOVERNOR)
    for policy, known in seen.below(POLICIES, "scaling_available_governors").items():
        if policy in policies and wanted not in known.split():
            raise UnmetError(f"{policy.rsplit('/', 1)[1]} has no governor {wanted}: {items.plain(known)}")
    return {f"{policy}/{GOVERNOR}": wanted for policy in policies}


def _policies(seen: Seen, name: str) -> list[str]:
    """Return the folders of the policies; UnmetError where there are none."""
    folders = sorted(seen.below(POLICIES, name))
    if not folders:
        denied = any(path.endswith(f"/{name}") for path in seen.denied)
        raise UnmetError(f"{name} cannot be read" if denied else "the device has no cpufreq policies")
    return folders


def _limit(which: str) -> Callable[[int, Seen], dict[str, str]]:
    def targets(percent: int, seen: Seen) -> dict[str, str]:
        goal = {}
        for policy in _policies(seen, which):
            top = items.number(seen.values.get(f"{policy}/cpuinfo_max_freq"), 0)
            if top <= 0:
                raise UnmetError(f"{policy.rsplit('/', 1)[1]} does not tell its greatest frequency")
            share = top * percent // 100
            # The clocks that there are: a kernel takes no other, or rounds it to one of them.
            listed = seen.values.get(f"{policy}/scaling_available_frequencies", "").split()
            clocks = sorted(items.number(clock, 0) for clock in listed) or [share]
            if which == HIGHEST:
                chosen = max((clock for clock in clocks if clock <= share), default=clocks[0])
            else:
                chosen = min((clock for clock in clocks if clock >= share), default=clocks[-1])
            goal[f"{policy}/{which}"] = str(chosen)
        return goal

    return targets


def _by_policy(name: str) -> Callable[[Seen], Any]:
    def value(seen: Seen) -> Any:
        told = {policy.rsplit("/", 1)[1]: text for policy, text in sorted(seen.below(POLICIES, name).items())}
        read = {policy: _number(text) for policy, text in told.items()}
        return read or None

    return value


def _charging(wanted: bool, seen: Seen) -> dict[str, str]:
    there = [path for path in CHARGING if path in seen.values]
    if not there:
        hidden = sorted(seen.denied & CHARGING.keys())
        if hidden:
            raise UnmetError(f"needs root: {hidden[0]} cannot be read")
        raise UnmetError("the device has no known file that suspends its charger's input")
    suspended = CHARGING[there[0]]
    return {there[0]: suspended if not wanted else "1" if suspended == "0" else "0"}


def _charges(seen: Seen) -> bool | None:
    told = [seen.values[path] == suspended for path, suspended in CHARGING.items() if path in seen.values]
    return None if not told else not told[0]


_LIMITS = tuple(
    f"{POLICIES}/{name}" for name in (LOWEST, HIGHEST, "cpuinfo_max_freq", "scaling_available_frequencies")
)

WANTS: Mapping[str, Want] = {
    "airplane_mode": Want((AIRPLANE,), _airplane, lambda seen: _told(seen, (AIRPLANE,), _truth)),
    "automatic_brightness": _setting(BRIGHTNESS_MODE, written=_switch, value=_truth),
    "brightness": Want(
        (BRIGHTNESS_MODE, BRIGHTNESS), _brightness, lambda seen: _told(seen, (BRIGHTNESS,), _number)
    ),
    "screen_timeout_ms": _setting(TIMEOUT, written=str, value=_number),
    "stay_on": Want((STAY_ON,), _stay_on, _stays_on),
    "heads_up_notifications": _setting(HEADS_UP, written=_switch, value=_truth),
    "animation_scale": _setting(*ANIMATIONS, written=lambda wanted: f"{wanted:g}", value=_number),
    "fixed_performance": Want((), _fixed_performance, lambda seen: None),
    "governor": Want(
        (f"{POLICIES}/{GOVERNOR}", f"{POLICIES}/scaling_available_governors"), _governor, _by_policy(GOVERNOR)
    ),
    "max_frequency_percent": Want(_LIMITS, _limit(HIGHEST), _by_policy(HIGHEST)),
    "min_frequency_percent": Want(_LIMITS, _limit(LOWEST), _by_policy(LOWEST)),
    "charging": Want(tuple(CHARGING), _charging, _charges),
}
"""By key of an experiment's `state`, in the order of setting; `stop_apps` is no item and is in `plan`."""
