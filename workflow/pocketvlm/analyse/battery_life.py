"""From the energy of a query to hours on a battery: the model of docs/method.md, section "Battery life".

    battery  E    = 3.6 * capacity * mean voltage over the charge           J
    slot     T    = 60 / queries a minute                                   s
    duty     d    = length of a query / T, impossible above 1               1
    power    P    = P_query * d + P_idle * (1 - d)                          W
    life     h    = E / (3600 * P)                                          h

A query that is longer than its slot has no hours: it is reported as impossible, with what the battery would
last if queries followed each other without a pause.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from pocketvlm.analyse.audit.quantity import EXACT, AbsentError, Values
from pocketvlm.analyse.audit.terms import MINUTE_S, slot_s, stack_total, told_hours
from pocketvlm.config.paper import CPU_ONLY, Paper, energy_group
from pocketvlm.errors import ConfigError, IntegrityError
from pocketvlm.provenance import atomic_file, read_json

POSSIBLE = "possible"
IMPOSSIBLE = "impossible"
UNKNOWN = "cannot be computed"

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Battery:
    """A battery.

    Args:
        capacity_mah: charge that it gives, mAh.
        curve: (charge in percent, voltage), ascending from 0 to 100; a nominal voltage is two equal points.
    """

    capacity_mah: float
    curve: tuple[tuple[float, float], ...]

    @property
    def voltage_v(self) -> float:
        """Mean voltage over the charge, V: the integral of the curve by trapezoids."""
        return sum((b - a) / 100.0 * (va + vb) / 2.0 for (a, va), (b, vb) in pairwise(self.curve))

    @property
    def energy_wh(self) -> float:
        """What it holds, Wh."""
        return self.capacity_mah / 1e3 * self.voltage_v


def battery(capacity_mah: float, voltage_v: float | Sequence[Sequence[float]]) -> Battery:
    """Return a battery from the configuration.

    Args:
        capacity_mah: charge, mAh.
        voltage_v: the nominal voltage, or `[charge in percent, voltage]` pairs from 0 to 100 percent.

    Raises:
        ConfigError: the curve does not ascend from 0 to 100.
    """
    if isinstance(voltage_v, int | float):
        return Battery(capacity_mah, ((0.0, float(voltage_v)), (100.0, float(voltage_v))))
    curve = tuple((float(charge), float(volts)) for charge, volts in voltage_v)
    charges = [charge for charge, _ in curve]
    if charges != sorted(set(charges)) or charges[0] != 0 or charges[-1] != 100:
        raise ConfigError(
            "the curve of a battery's voltage does not ascend from 0 to 100 percent",
            where="analysis.battery_life.voltage_v",
            do="Write [charge in percent, volts] pairs, the first at 0 and the last at 100",
        )
    return Battery(capacity_mah, curve)


@dataclass(frozen=True)
class Life:
    """How long a battery lasts with queries at a rate.

    Args:
        slot_s: time from one query to the next.
        duty: share of the slot that a query takes; above 1 it does not fit.
        mean_power_w, hours: None when it does not fit.
        continuous_hours: without a pause between queries.
        idle_hours: without queries; None when the power at rest is not known.
    """

    slot_s: float
    duty: float
    mean_power_w: float | None
    hours: float | None
    continuous_hours: float
    idle_hours: float | None
    verdict: str
    reason: str


def estimate(
    source: Battery, *, power_w: float, idle_w: float | None, query_s: float, queries_per_minute: float
) -> Life:
    """Return how long a battery lasts.

    Args:
        source: the battery.
        power_w: mean power during a query, the whole device's.
        idle_w: power of the device at rest with its screen as during the query; None if unknown.
        query_s: length of a query, from its start to the next possible start.
        queries_per_minute: how many begin in a minute.
    """
    slot = MINUTE_S / queries_per_minute
    duty = query_s / slot
    continuous = source.energy_wh / power_w
    at_rest = source.energy_wh / idle_w if idle_w else None
    if duty > 1:
        why = f"a query of {query_s:.4g} s does not fit into its slot of {slot:.4g} s"
        return Life(slot, duty, None, None, continuous, at_rest, IMPOSSIBLE, why)
    if idle_w is None and duty < 1:
        why = "the power at rest is not known, and the device rests between queries"
        return Life(slot, duty, None, None, continuous, None, UNKNOWN, why)
    mean = power_w * duty + (idle_w or 0.0) * (1.0 - duty)
    return Life(slot, duty, mean, source.energy_wh / mean, continuous, at_rest, POSSIBLE, "")


def query_for(
    source: Battery, hours: float, *, power_w: float, idle_w: float, queries_per_minute: float
) -> float | None:
    """Return the length of a query in s at which a battery lasts so many hours, None if none does.

    The inverse of `estimate`; None where resting alone, or a query that fills its slot, cannot give them.
    """
    duty = (source.energy_wh / hours - idle_w) / (power_w - idle_w) if power_w != idle_w else -1.0
    return duty * MINUTE_S / queries_per_minute if 0 <= duty <= 1 else None


@dataclass(frozen=True)
class Row:
    """A row of `battery_life.csv`; None is an empty cell, `reason` says why."""

    experiment: str
    stack: str | None
    cell: str | None
    device_kind: str
    weights_kind: str
    queries_per_minute: float
    capacity_mah: float
    voltage_v: float
    battery_wh: float
    power_w: float | None
    idle_w: float | None
    query_s: float | None
    slot_s: float
    duty_percent: float | None
    mean_power_w: float | None
    hours: float | None
    continuous_hours: float | None
    idle_hours: float | None
    claimed_hours: float | None
    query_s_for_claim: float | None
    verdict: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Row))


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV, atomically; numbers with six digits."""
    with atomic_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_text(getattr(row, name)) for name in COLUMNS] for row in rows)


def _text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.6g}"


@dataclass(frozen=True)
class _Subject:
    experiment: str
    stack: str | None
    cell: str | None
    device_kind: str
    weights_kind: str


def _row(
    who: _Subject,
    source: Battery,
    rate: float,
    *,
    power_w: float | None,
    idle_w: float | None,
    query_s: float | None,
    claimed: float | None = None,
    why: str = "",
) -> Row:
    life = None
    if power_w is not None and query_s is not None:
        life = estimate(source, power_w=power_w, idle_w=idle_w, query_s=query_s, queries_per_minute=rate)
    needed = None
    if claimed is not None and power_w is not None and idle_w is not None:
        needed = query_for(source, claimed, power_w=power_w, idle_w=idle_w, queries_per_minute=rate)
    if life is not None and life.verdict == UNKNOWN and why:
        why = f"{life.reason}: {why}"
    elif life is not None:
        why = life.reason
        if claimed is not None and life.hours is not None and life.hours < claimed:
            why = f"{claimed:g} h are claimed, the model gives {life.hours:.3g}"
    return Row(
        **who.__dict__,
        queries_per_minute=rate,
        capacity_mah=source.capacity_mah,
        voltage_v=source.voltage_v,
        battery_wh=source.energy_wh,
        power_w=power_w,
        idle_w=idle_w,
        query_s=query_s,
        slot_s=MINUTE_S / rate,
        duty_percent=100.0 * life.duty if life else None,
        mean_power_w=life.mean_power_w if life else None,
        hours=life.hours if life else None,
        continuous_hours=life.continuous_hours if life else None,
        idle_hours=life.idle_hours if life else None,
        claimed_hours=claimed,
        query_s_for_claim=needed,
        verdict=life.verdict if life else UNKNOWN,
        reason=why,
    )


def published(paper: Paper, voltage_v: float | Sequence[Sequence[float]]) -> list[Row]:
    """Return the paper's case, a row a stack: its powers, times, current at rest, battery and rate.

    Args:
        paper: the published values.
        voltage_v: as in the configuration; the paper prints no voltage.
    """
    values = Values(paper.values)
    source = battery(values.number("energy.battery.capacity_mah", EXACT).low, voltage_v)
    rate = MINUTE_S / slot_s(values).low
    rows = []
    for stack in paper.stacks:
        place, group = f"utilisation.{stack.id}", energy_group(stack)
        claim = "energy.battery.cpu_only_llava_h" if group == CPU_ONLY else None
        if claim is None and values.has(f"{place}.gpu_pct") and values.number(f"{place}.gpu_pct").high > 0:
            claim = "energy.battery.gpu_path"
        told = None
        numbers: dict[str, float | None] = {"power_w": None, "idle_w": None, "query_s": None}
        why = ""
        try:
            own = f"{place}.power_w"
            numbers["power_w"] = _middle(values, own if values.has(own) else f"energy.{group}.power_w")
            numbers["idle_w"] = _middle(values, "utilisation.idle.current_a") * source.voltage_v
            numbers["query_s"] = stack_total(values, stack.id).low / 1e3
            if claim:
                words = isinstance(values.at(claim), str)
                told = told_hours(values, claim).low if words else _middle(values, claim)
        except AbsentError as error:
            why = str(error)
        who = _Subject(paper.name, stack.id, None, "phone", "published")
        rows.append(_row(who, source, rate, **numbers, claimed=told, why=why))
    return rows


def _middle(values: Values, place: str) -> float:
    number = values.number(place)
    return (number.low + number.high) / 2.0


def measured(
    cells: str | Path,
    summary: str | Path,
    *,
    capacity_mah: float,
    voltage_v: float | Sequence[Sequence[float]],
    queries_per_minute: Sequence[float],
) -> list[Row]:
    """Return how long a battery would last with what was measured, a row a cell and rate.

    The power of a query is the median energy of the whole run over its median length; that at rest is what
    gross and net power differ by, the idle run of the block.

    Args:
        cells: `cells.json`.
        summary: `tables/cells.csv`.
        capacity_mah, voltage_v, queries_per_minute: `analysis.battery_life` of the configuration.

    Raises:
        IntegrityError: the table lacks a column or holds what is no number.
    """
    study = read_json(cells)
    source = battery(capacity_mah, voltage_v)
    with Path(summary).open(newline="", encoding="utf-8") as stream:
        table = {
            (row["cell"], row["metric"]): row for row in csv.DictReader(stream) if row.get("phase") == "run"
        }
    rows = []
    for cell in study["cells"]:
        names = ("energy", "duration", "power", "power_net")
        found = {name: _median(table.get((cell["cell"], name)), summary) for name in names}
        energy, length = found["energy"][0], found["duration"][0]
        power = energy / (length / 1e3) if energy is not None and length else None
        gross, net = found["power"][0], found["power_net"][0]
        idle = gross - net if gross is not None and net is not None else None
        lacking = [name for name in names if found[name][0] is None]
        told = [f"{name}: {found[name][1]}" for name in lacking if found[name][1]]
        who = _Subject(
            study["experiment"], cell.get("stack"), cell["cell"], cell["device_kind"], cell["weights_kind"]
        )
        why = cell.get("unavailable") or (told[0] if told else "")
        why = why or (f"the table has no {lacking[0]} of a run" if lacking else "")
        seconds = length / 1e3 if length is not None else None
        rows += [
            _row(who, source, rate, power_w=power, idle_w=idle, query_s=seconds, why=why)
            for rate in queries_per_minute
        ]
    return rows


def _median(row: Mapping[str, Any] | None, path: str | Path) -> tuple[float | None, str]:
    """Return a row's median, or None and why there is none."""
    if row is None:
        return None, ""
    try:
        return (float(row["median"]) if row["median"] else None), row["gate"]
    except (KeyError, ValueError, TypeError):
        raise IntegrityError(
            f"{Path(path).name} has a row without a readable median",
            where=str(path),
            do="Remove it: the workflow makes it again",
        ) from None
