"""Sensor values of a run as series in the unit that the device's identity gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketvlm.analyse.energy import Spans, counter_energy, difference, inside, integral, mean, unwrap
from pocketvlm.analyse.plausible import apart, implausible
from pocketvlm.analyse.raw import Floats, Ints, Run

MIN_SAMPLES = 5
"""A rate or a mean over fewer samples is not given."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""Times of /proc/stat in which this system computed; in `steal` the host ran something else on its core."""


@dataclass(frozen=True)
class Value:
    """A number, or why there is none, and how many samples it stands on."""

    value: float | None
    samples: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Series:
    """One sensor over a run: microseconds from its start and values in `unit`, unreadable ticks left out."""

    name: str
    quantity: str
    component: str
    unit: str
    kind: str
    t_us: Ints
    values: Floats
    wrap: float | None = None


class Sensors:
    """The series of one run, found by quantity and component.

    Args:
        run: the recorded run.
        identity: the device's `identity.json`: sensors, scales and what is missing.

    Attributes:
        series: what was read and can be true.
        doubted: series left out of them that were right for a part of the run only.
    """

    def __init__(self, run: Run, identity: Mapping[str, Any]) -> None:
        self.wake_t_us, self.wake_late_us = run.wake_t_us, run.wake_late_us
        self._missing: Sequence[Mapping[str, Any]] = identity.get("missing", [])
        self._device = str(identity.get("id", "the device"))
        status = {s["name"] for s in identity["sensors"] if s["quantity"] == "battery_status"}
        self._battery_status = [(t_us, value) for t_us, name, value in run.texts if name in status]
        self.series: list[Series] = []
        for sensor in identity["sensors"]:
            group = run.groups.get(sensor["group"])
            if sensor["kind"] == "text" or group is None or sensor["name"] not in group.columns:
                continue
            scale = float(sensor["scale"])
            raw = group.columns[sensor["name"]]
            seen = np.isfinite(raw)
            wrap = sensor.get("range")
            self.series.append(
                Series(
                    name=sensor["name"],
                    quantity=sensor["quantity"],
                    component=sensor["component"],
                    unit=sensor["unit"],
                    kind=sensor["kind"],
                    t_us=group.t_us[seen],
                    values=raw[seen] * scale,
                    wrap=None if wrap is None else float(wrap) * scale,
                )
            )
        self._implausible = self._leave_out()

    def _leave_out(self) -> dict[tuple[str, str], str]:
        """Take out the series that cannot be true; return why, by quantity and component."""
        gauges = [s for s in self.series if s.kind == "gauge"]
        why = {s.name: implausible(s.quantity, s.values, s.unit) for s in gauges}
        zones = [s for s in gauges if s.quantity == "temperature" and s.t_us.size and not why[s.name]]
        why |= apart({s.name: float(np.median(s.values)) for s in zones})
        wrong = [s for s in gauges if why[s.name]]
        self.doubted = [s for s in wrong if not _all_wrong(s)]
        self.series = [s for s in self.series if not why.get(s.name)]
        return {(s.quantity, s.component): f"{s.name} cannot be true: {why[s.name]}" for s in wrong}

    def find(self, quantity: str, prefix: str = "") -> list[Series]:
        """Return the series of a quantity whose component begins with `prefix`, those ever read."""
        return [
            s
            for s in self.series
            if s.quantity == quantity and s.component.startswith(prefix) and s.t_us.size > 0
        ]

    def why_missing(self, *quantities: str, component: str = "") -> str:
        """Return why a quantity has no series: what became of its sensors, else the identity's own reason."""
        for (quantity, part), why in self._implausible.items():
            if quantity in quantities and part.startswith(component):
                return why
        named = [
            s.name
            for s in self.series
            if s.quantity in quantities and s.component.startswith(component) and not s.t_us.size
        ]
        if named:
            return f"{', '.join(named[:3])} could not be read during the run"
        for quantity in quantities:
            for entry in self._missing:
                if entry.get("quantity") == quantity and str(entry.get("component", "")).startswith(
                    component
                ):
                    return str(entry.get("reason", ""))[:300] or f"{quantity} is missing"
        return f"{self._device} names no sensor of {quantities[0]}"

    def doubtful(self, quantity: str, component: str) -> str:
        """Return why a class of sensors is not to be trusted: one of them was right for a part of a run.

        One that was never right is no sensor, and the others stand for the class; empty where all is well.
        """
        for series in self.doubted:
            if series.quantity == quantity and series.component.split(".")[0] == component:
                return self._implausible[series.quantity, series.component]
        return ""

    def mean(self, series: Sequence[Series], spans: Spans, factor: float = 1.0) -> Value:
        """Return the time-weighted mean of a gauge over spans; of several units that of the busiest."""
        counts = [int(np.count_nonzero(inside(s.t_us, spans))) for s in series]
        if min(counts) < MIN_SAMPLES:
            return _few(min(counts))
        return Value(max(mean(s.t_us, s.values, spans) for s in series) * factor, min(counts))

    def extreme(self, series: Sequence[Series], spans: Spans, *, smallest: bool = False) -> Value:
        """Return the largest (or smallest) value within spans over all series; samples of the densest."""
        seen = [s.values[inside(s.t_us, spans)] for s in series]
        count = max(v.size for v in seen)
        if count < MIN_SAMPLES:
            return _few(count)
        joined = np.concatenate(seen)
        return Value(float(joined.min() if smallest else joined.max()), count)

    def at(self, series: Sequence[Series], t_us: int) -> float:
        """Return the largest of the series' values at a moment, interpolated."""
        return max(float(np.interp(t_us, s.t_us, s.values)) for s in series)

    def utilisation(self, quantity: str, components: Sequence[str], spans: Spans) -> Value:
        """Return the increase of summed CPU-time counters over spans, in percent of one core."""
        parts = [s for s in self.find(quantity) if s.component in components]
        if not parts:
            return Value(None, 0, self.why_missing(quantity))
        total = 0.0
        counts = []
        for part in parts:
            count = int(np.count_nonzero(inside(part.t_us, spans)))
            if count < MIN_SAMPLES:
                return _few(count)
            values = unwrap(part.values, part.wrap)
            if values is None:
                return Value(None, count, f"the counter {part.name} went back")
            increase, seconds = difference(part.t_us, values, spans)
            if seconds <= 0:
                return Value(None, count, f"{part.name} was not read during the phase")
            total += 100.0 * increase / seconds
            counts.append(count)
        return Value(total, min(counts))

    def energy(self, spans: Spans) -> Value:
        """Return joules over spans: battery voltage x current, else the RAPL packages and memory.

        While a battery charges, its current is not what the device uses: NA. Packages contain their
        cores, and `psys` contains everything: nested domains are not added.
        """
        current = self.find("current", "battery")
        voltage = self.find("voltage", "battery")
        if current and voltage:
            t_us = current[0].t_us
            count = int(np.count_nonzero(inside(t_us, spans)))
            charging = self._charging(current[0], spans)
            if charging:
                return Value(None, count, charging)
            if count < MIN_SAMPLES:
                return _few(count)
            power = current[0].values * np.interp(t_us, voltage[0].t_us, voltage[0].values)
            return Value(integral(t_us, power, spans), count)
        domains = [*self.find("energy", "rapl.package"), *self.find("energy", "rapl.dram")]
        if not domains:
            return Value(None, 0, self.why_missing("power", "current", "voltage", "energy"))
        total = 0.0
        counts = []
        for domain in domains:
            counts.append(int(np.count_nonzero(inside(domain.t_us, spans))))
            if counts[-1] < MIN_SAMPLES:
                return _few(counts[-1])
            values = unwrap(domain.values, domain.wrap)
            if values is None:
                return Value(
                    None, counts[-1], f"the counter {domain.name} went back and its range is not known"
                )
            joules = counter_energy(domain.t_us, values, spans)
            if joules is None:
                return Value(None, counts[-1], f"{domain.name} was not read during the phase")
            total += joules
        return Value(total, min(counts))

    def _charging(self, current: Series, spans: Spans) -> str:
        """Return why the battery's current is not the device's own over spans; empty when it is.

        The status in force at a moment is the last one told before it; a device that tells none is judged
        by the sign of the current alone.
        """
        for start, end in spans:
            before = [value for t_us, value in self._battery_status if t_us <= start][-1:]
            during = [value for t_us, value in self._battery_status if start < t_us < end]
            for status in (*before, *during):
                if status.strip() != "Discharging":
                    return f"the battery was not discharging: its status was {status.strip()!r}"
            # The ends of a span are interpolated: a negative sample just outside reaches into it.
            ends = np.interp([start, end], current.t_us, current.values)
            seen = current.values[inside(current.t_us, [(start, end)])]
            if min(*ends, *seen) < 0:
                return "the battery was not discharging: its current was negative"
        return ""

    def wake_late(self, spans: Spans, percentile: float) -> Value:
        """Return a percentile of the wake-up lateness within spans, in milliseconds."""
        late = self.wake_late_us[inside(self.wake_t_us, spans)]
        if late.size < MIN_SAMPLES:
            return _few(int(late.size))
        return Value(float(np.percentile(late, percentile)) * 1e-3, int(late.size))


def _all_wrong(series: Series) -> bool:
    """Whether no single reading of a sensor can be true."""
    return all(
        implausible(series.quantity, series.values[at : at + 1], "") for at in range(series.values.size)
    )


def _few(count: int) -> Value:
    return Value(None, count, f"{count} samples in the phase, {MIN_SAMPLES} are needed")
