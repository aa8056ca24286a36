"""The probe's sensor list, written from a device's identity.

The format is in docs/formats.md, "The sensor list of the probe".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pocketvlm.errors import ConfigError
from pocketvlm.provenance import atomic_file

# The limits are the probe's own (workflow/probe/sensors.h, extract.h): what passes here is not refused there.
_NAME = re.compile(r"[a-z0-9_.-]{1,100}")
_SELECT = re.compile(
    r"first|text|field:\d{1,4}|stat:[1-9]\d{0,3}|line:[^\s\0]{1,63}:\d{1,4}|ioctl:(0[xX])?[0-9a-fA-F]{1,8}",
    re.ASCII,
)
_PATH_BYTES, _GROUPS, _SENSORS = 1024, 64, 2048
_PERIODS_MS = range(1, 3_600_001)


def text(identity: Mapping[str, Any], *, where: str = "identity.json") -> str:
    """Return the sensor list of a device.

    Args:
        identity: the content of identity.json; its `groups` give the periods, its `sensors` are listed
            group by group, each group's in their own order. A group without sensors is left out.
        where: the file that the messages name.

    Raises:
        ConfigError: a name, period, path or select that the probe would refuse, or a sensor in no group.
    """
    groups, sensors = identity["groups"], identity["sensors"]
    members: dict[str, list[str]] = {name: [] for name in groups}
    seen: set[str] = set()
    for number, sensor in enumerate(sensors):
        place = f"{where}: sensors[{number}]"
        name, group = str(sensor["name"]), sensor["group"]
        path, select = str(sensor["path"]), str(sensor["select"])
        _check(_is_name(name), f"the sensor's name is {name!r}", place, _NAME_RULE)
        _check(name not in seen, f"the sensor {name} stands there twice", place, "Give each its own name")
        _check(group in members, f"{name} belongs to an unknown group {group!r}", place, "Add it to groups")
        _check_path(name, path, place)
        _check_select(name, select, place)
        seen.add(name)
        members[group].append(f"sensor\t{name}\t{path}\t{select}\n")
    lines = ["pocketvlm-sensors\t1\n"]
    for name, rows in members.items():
        place = f"{where}: groups.{name}"
        period = groups[name]["period_ms"]
        whole = isinstance(period, int) and not isinstance(period, bool) and period in _PERIODS_MS
        _check(_is_name(name), f"the group's name is {name!r}", place, _NAME_RULE)
        _check(name != "wake", "wake.csv belongs to the responsiveness thread", place, "Choose another name")
        _check(whole, f"the period is {period!r}", place, "Give 1 to 3600000 whole milliseconds")
        if rows:
            lines += [f"group\t{name}\t{period}\n", *rows]
    used = sum(1 for rows in members.values() if rows)
    _check(used <= _GROUPS, f"there are {used} groups", where, f"Use at most {_GROUPS}")
    _check(len(seen) <= _SENSORS, f"there are {len(seen)} sensors", where, f"Use at most {_SENSORS}")
    return "".join(lines)


def write(identity: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the sensor list of a device, atomically.

    Raises:
        ConfigError: as `text`.
    """
    content = text(identity)
    with atomic_file(path, "wb") as stream:
        stream.write(content.encode("utf-8", "surrogateescape"))


_NAME_RULE = "Use 1 to 100 characters of a-z, 0-9, _ . -"


def _check(good: bool, what: str, where: str, do: str) -> None:
    if not good:
        raise ConfigError(what, where=where, do=do)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _check_path(name: str, path: str, where: str) -> None:
    plain = not any(c in path for c in "\t\n\0")
    long = len(path.encode("utf-8", "surrogateescape")) > _PATH_BYTES
    _check(path.startswith("/"), f"the path of {name} is {path!r}", where, "Give a path that begins with /")
    _check(plain, f"the path of {name} is {path!r}", where, "Take out the tab, line end or NUL")
    _check(not long, f"the path of {name} is too long", where, f"Use at most {_PATH_BYTES} bytes")


def _check_select(name: str, select: str, where: str) -> None:
    good = _SELECT.fullmatch(select) is not None and select not in ("stat:2", "stat:3")
    long_key = select.startswith("line:") and len(select[5:].rpartition(":")[0].encode()) > 63
    do = "Use one of first, field:N, line:KEY:N, stat:N (2 and 3 are no numbers), text, ioctl:REQUEST"
    _check(good and not long_key, f"the select of {name} is {select!r}", where, do)
