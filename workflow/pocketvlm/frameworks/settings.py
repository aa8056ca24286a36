"""Settings that every framework takes, because the workflow and not the framework sees to them.

An adapter never sees them: it is given the settings of a cell without these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.cpulist import canonical, parse
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import command

AFFINITY = "affinity"
"""The CPUs that the workload may run on, a list such as `0-3,6`; without it there is no such setting."""


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a cell that are its framework's own."""
    return {name: value for name, value in settings.items() if name != AFFINITY}


def affinity(settings: Mapping[str, Any], *, where: str = "settings") -> str | None:
    """Return the CPUs that a cell's workload is to run on, as the kernel would print them; None for any.

    Raises:
        ConfigError: what is given is no list of CPUs.
    """
    if AFFINITY not in settings:
        return None
    value = settings[AFFINITY]
    cpus = parse(value) if isinstance(value, str) else None
    if not cpus:
        raise ConfigError(
            f"{AFFINITY} is {value!r}",
            where=f"{where}.{AFFINITY}",
            do='Give a list of CPUs in quotes, such as "0-3,6"',
        )
    return canonical(cpus)


def resolve(adapter: str, settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, Any]:
    """Return all settings of a cell: its framework's with their defaults, and the general ones that it gives.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    resolved = dict(command(adapter).resolve_settings(own(settings), where=where))
    pinned = affinity(settings, where=where)
    return resolved if pinned is None else {**resolved, AFFINITY: pinned}
