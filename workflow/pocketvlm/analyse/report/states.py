"""What an experiment wanted of its devices' state, what it was, and what was met, from the runs' records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 200


@dataclass(frozen=True)
class Wish:
    """One thing wanted on a device: how it was before, in how many runs it was met, and why not in others."""

    name: str
    wanted: str
    found: str
    met: int
    runs: int
    why: tuple[str, ...]


def wishes(states: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, tuple[Wish, ...]]:
    """Return what was wanted of each device, by its id.

    Args:
        states: device and `state` of the `meta.json` of each run; what is no such record is left out.
    """
    by_device: dict[str, list[Mapping[str, Any]]] = {}
    for device, state in states:
        if isinstance(state, Mapping):
            by_device.setdefault(device, []).append(state)
    return {device: tuple(_wishes(found)) for device, found in sorted(by_device.items())}


def _wishes(states: list[Mapping[str, Any]]) -> Iterable[Wish]:
    names = list(dict.fromkeys(name for state in states for name in _part(state, "wanted")))
    for name in names:
        of_want = [state for state in states if name in _part(state, "wanted")]
        unmet = [_part(state, "unmet")[name] for state in of_want if name in _part(state, "unmet")]
        yield Wish(
            name=name,
            wanted=_texts(_part(state, "wanted")[name] for state in of_want),
            found=_texts(_part(state, "found").get(name) for state in of_want),
            met=len(of_want) - len(unmet),
            runs=len(of_want),
            why=tuple(dict.fromkeys(str(why)[:_LONGEST] for why in unmet))[:5],
        )
    if unclean := [state["power_not_clean"] for state in states if state.get("power_not_clean")]:
        why = tuple(dict.fromkeys(str(each)[:_LONGEST] for each in unclean))
        yield Wish("clean_power", "true", "", len(states) - len(unclean), len(states), why)


def _part(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = state.get(name)
    return part if isinstance(part, Mapping) else {}


def _texts(values: Iterable[Any]) -> str:
    """Return the different values, as they are written in an experiment; what was not told is NA."""
    told = dict.fromkeys("NA" if value is None else json.dumps(value)[:_LONGEST] for value in values)
    return " or ".join(list(told)[:5]).replace('"', "")
