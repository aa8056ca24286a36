"""What a search for settings may try: every combination of its axes that the framework takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm import frameworks
from pocketvlm.config.schema import suggest
from pocketvlm.cpulist import canonical, parse
from pocketvlm.devices.topology import Topology
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks.settings import AFFINITY, resolve

QUANTISATION = "quantisation"
ANY = "any"
"""The affinity that keeps the workload nowhere."""

DEFAULTS = "defaults"
"""The name of the framework's own choice, which every candidate is compared with."""

MOST = 5000
"""More combinations are not listed: no budget tries a part of them that says anything about the rest."""


@dataclass(frozen=True)
class Candidate:
    """Settings that may be tried.

    Attributes:
        name: the value of each axis, `threads=2 batch=256`, or DEFAULTS.
        axes: the value of each axis; none of DEFAULTS.
        quantisation: of the model.
        settings: of the cell.
    """

    name: str
    axes: Mapping[str, Any]
    quantisation: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """All that a search may try.

    Attributes:
        defaults: what the framework would choose by itself, at the quantisation of the experiment's cell.
        candidates: everything else, each once.
        left_out: why other combinations are not among them, by name.
    """

    defaults: Candidate
    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        listed = [dict(each.__dict__) for each in (self.defaults, *self.candidates)]
        return {"defaults": listed[0], "candidates": listed[1:], "left_out": dict(self.left_out)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Space:
        """Return what `plain` wrote."""
        candidates = tuple(Candidate(**each) for each in plain["candidates"])
        return cls(Candidate(**plain["defaults"]), candidates, plain["left_out"])


def settings_of(adapter: str, axis: str, value: Any) -> dict[str, Any]:
    """Return the settings that a value of an axis stands for; none for a quantisation."""
    if axis == QUANTISATION:
        return {}
    if axis == AFFINITY:
        return {} if value == ANY else {AFFINITY: value}
    return dict(frameworks.tuning(adapter).settings_of(axis, value))


def automatic(adapter: str, axis: str, topology: Topology, quantisations: Sequence[str]) -> list[Any] | None:
    """Return the values that `auto` means for an axis; None where that is not known.

    Args:
        adapter: of the framework.
        axis: its name.
        topology: of the device.
        quantisations: all of the model's.
    """
    if axis == QUANTISATION:
        return list(quantisations)
    if axis == AFFINITY:
        return affinities(topology)
    found: list[Any] | None = frameworks.tuning(adapter).candidates(axis, topology)
    return found


def affinities(topology: Topology) -> list[str]:
    """Return where a workload may be kept: anywhere, on the fastest class of cores, on the two fastest, …

    Where cores have several CPUs each, also on one CPU of every core.
    """
    chosen = [
        tuple(cpu for one in topology.classes[:count] for cpu in one)
        for count in range(1, len(topology.classes))
    ]
    if len(topology.cores) < topology.cpus:
        chosen.append(tuple(core[0] for core in topology.cores))
    return [ANY, *dict.fromkeys(canonical(cpus) for cpus in chosen)]


def space(
    *,
    adapter: str,
    quirks: Mapping[str, Any],
    settings: Mapping[str, Any],
    quantisation: str,
    quantisations: Sequence[str],
    axes: Mapping[str, Any],
    topology: Topology,
    where: str,
    least: int = 1,
) -> Space:
    """Return everything that may be tried on a device.

    Args:
        adapter, quirks: of the framework and its version.
        settings, quantisation: of the experiment's cell; settings that no axis varies stay.
        quantisations: all of the model's.
        axes: values by axis, or `auto`.
        topology: of the device.
        where: the experiment's file and key, for messages.
        least: how many candidates there must be besides the defaults.

    Raises:
        ConfigError: an axis or a value of it is none, there are too many combinations, or too few of them.
    """
    values = {
        axis: _values(adapter, axis, given, topology, quantisations, where) for axis, given in axes.items()
    }
    if math.prod(map(len, values.values())) > MOST:
        raise ConfigError(
            f"the axes have {math.prod(map(len, values.values()))} combinations, at most {MOST} are allowed",
            where=where,
            do="Give fewer values",
        )
    meant = [[set(settings_of(adapter, axis, one)) for one in listed] for axis, listed in values.items()]
    touched = set().union(*itertools.chain(*meant))
    # What only some values of an axis bring along is none of its own: the cell's wish for it stays.
    varied = set().union(*(set.intersection(*each) for each in meant))
    own = frameworks.tuning(adapter).defaults(topology, quirks)
    base = {name: value for name, value in settings.items() if AFFINITY not in axes or name != AFFINITY}
    taken = varied | (touched - set(base))
    anchor = {**base, **{name: own[name] for name in sorted(taken - {AFFINITY})}}
    defaults = Candidate(DEFAULTS, {}, quantisation, anchor)
    seen = {_identity(adapter, defaults, where)}
    found: list[Candidate] = []
    left_out: dict[str, str] = {}
    used: set[tuple[str, Any]] = set()
    refused: dict[tuple[str, Any], str] = {}
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        words = {(axis, _text(value)) for axis, value in chosen.items()}
        name = " ".join(f"{axis}={_text(value)}" for axis, value in chosen.items())
        try:
            merged = _merged(adapter, anchor, chosen)
            candidate = Candidate(name, chosen, chosen.get(QUANTISATION, quantisation), merged)
            identity = _identity(adapter, candidate, where)
            _fits(merged, topology)
        except ConfigError as error:
            left_out[name] = f"{error.what}. {error.do}"
            refused = dict.fromkeys(words, left_out[name]) | refused
            continue
        used |= words
        if identity not in seen:
            seen.add(identity)
            found.append(candidate)
    _check_used(values, used, axes, refused, where)
    if len(found) < least:
        raise ConfigError(
            "the axes allow nothing but the framework's defaults", where=where, do="Give more values"
        )
    return Space(defaults, tuple(found), left_out)


def _values(
    adapter: str, axis: str, given: Any, topology: Topology, quantisations: Sequence[str], where: str
) -> list[Any]:
    known = frameworks.command(adapter).SETTINGS
    names = [AFFINITY, QUANTISATION, *frameworks.tuning(adapter).AXES, *known]
    if axis not in names:
        raise ConfigError(
            f"there is no axis {axis!r}",
            where=f"{where}.{axis}",
            do=suggest(axis, list(dict.fromkeys(names))),
        )
    if given == "auto":
        found = automatic(adapter, axis, topology, quantisations)
        if found is None:
            raise ConfigError(
                f"nothing is known of {axis} that auto could mean",
                where=f"{where}.{axis}",
                do="Give a list of values",
            )
        return found
    for value in given:
        if axis == QUANTISATION and value not in quantisations:
            raise ConfigError(
                f"the quantisation {value!r} is not known",
                where=f"{where}.{axis}",
                do=suggest(str(value), list(quantisations)),
            )
        if axis == AFFINITY and value != ANY and not (isinstance(value, str) and parse(value)):
            raise ConfigError(
                f"{value!r} is no list of CPUs",
                where=f"{where}.{axis}",
                do='Give lists in quotes, such as "0-3,6", or any',
            )
    return list(given)


def _merged(adapter: str, anchor: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for axis, value in chosen.items():
        for name, wanted in settings_of(adapter, axis, value).items():
            if settings.get(name, wanted) != wanted:
                raise ConfigError(
                    f"{axis}={_text(value)} needs {name}={_text(wanted)}, and another axis says otherwise",
                    do="That combination is not tried",
                )
            settings[name] = wanted
    return {**anchor, **settings}


def _fits(settings: Mapping[str, Any], topology: Topology) -> None:
    """Raise for a combination that no device like this can want."""
    if AFFINITY not in settings:
        cpus = topology.cpus
    else:
        allowed = parse(str(settings[AFFINITY])) or frozenset()
        if beyond := [cpu for cpu in allowed if cpu >= topology.cpus]:
            raise ConfigError(f"the device has no CPU {beyond[0]}", do="That combination is not tried")
        cpus = len(allowed)
    threads = settings.get("threads")
    if isinstance(threads, int) and threads > cpus:
        raise ConfigError(
            f"{threads} threads would share {cpus} CPU{'s' if cpus > 1 else ''}",
            do="That combination is not tried",
        )


def _identity(adapter: str, candidate: Candidate, where: str) -> tuple[Any, ...]:
    """Return what two candidates share that are the same run, however they are named."""
    resolved = resolve(adapter, candidate.settings, where=where)
    return (candidate.quantisation, *sorted((name, repr(value)) for name, value in resolved.items()))


def _check_used(
    values: Mapping[str, Sequence[Any]],
    used: set[tuple[str, Any]],
    axes: Mapping[str, Any],
    refused: Mapping[tuple[str, Any], str],
    where: str,
) -> None:
    """Raise for a value that somebody wrote and no combination can have, with the first reason."""
    for axis, listed in values.items():
        if axes[axis] == "auto":
            continue
        for value in listed:
            if (axis, _text(value)) in used:
                continue
            raise ConfigError(
                f"{axis}={_text(value)} cannot be run in any combination: {refused[axis, _text(value)]}",
                where=f"{where}.{axis}",
                do="Remove it",
            )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
