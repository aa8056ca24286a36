"""Waiting until a device is cool enough to be measured: before each run, with a deadline.

A device is cool when each of its classes (hottest zone of CPU and GPU, skin, battery) is at or below the
limit that the experiment gives, or back at the temperature at which the experiment began on it. That first
temperature is taken when the limits allow the first run, so that an experiment that begins hot does not make
its own excuse.

What a sensor says is not believed blindly. A value that is none, or that no such part can have, is no
temperature, and a processor that does not warm or cool through a run tells none either: such a class is never
cool. As it will hardly mend itself, it is waited for only a little.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device, run
from pocketvlm.devices.root import privileged
from pocketvlm.errors import DeviceError
from pocketvlm.measure.jobs import Job
from pocketvlm.measure.store import RawStore
from pocketvlm.provenance import read_json

log = logging.getLogger(__name__)

CLASSES = ("cpu", "gpu", "skin", "battery")
# The limit of each class: a SoC's CPU and GPU share a die.
_LIMIT = {
    "cpu": "cpu_celsius",
    "gpu": "cpu_celsius",
    "skin": "skin_celsius",
    "battery": "battery_celsius",
}
# `read` is built into mksh and dash: a phone has dozens of zones, and no process is started for any of them.
_SCRIPT = r'for file do value=; { read -r value < "$file"; } 2>/dev/null; printf "%s\n" "$value"; done'
_TIMEOUT_S = 20.0
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?(?=\s|%|$)")
# No part of a device that answers is colder or hotter, in degC; sensors that are off say such numbers.
_COLDEST, _HOTTEST = -20.0, 130.0
# A class that cannot be told is waited for this long, or to the deadline if that is earlier.
_UNKNOWN_S = 30.0
# A hot zone that has not moved for so long is said to be stuck.
_STUCK_S = 60.0
# A processor that works for so long, read so often, changes its temperature.
_RUN_S, _READS = 5.0, 20


@dataclass(frozen=True)
class Reading:
    """What a device's sensors say at one moment.

    Attributes:
        temperatures: degC of the hottest zone by class; only classes that could be told.
        zones: the name of that zone, and what it said, by class.
        unknown: why a class that has sensors could not be told, by class.
    """

    temperatures: Mapping[str, float]
    zones: Mapping[str, tuple[str, str]]
    unknown: Mapping[str, str]

    def __str__(self) -> str:
        told = [f"{kind} {celsius:.1f} degC" for kind, celsius in self.temperatures.items()]
        return ", ".join([*told, *[f"{kind} not known" for kind in self.unknown]])


class Thermometer:
    """The temperature sensors of a device, by class.

    Args:
        device: where they are.
        identity: its identity, paths as they are on the device.
    """

    def __init__(self, device: Device, identity: Mapping[str, Any]) -> None:
        self.device = device
        self.sensors: dict[str, list[Mapping[str, Any]]] = {}
        for sensor in identity["sensors"]:
            kind = str(sensor["component"]).split(".")[0]
            if sensor["quantity"] == "temperature" and kind in CLASSES:
                self.sensors.setdefault(kind, []).append(sensor)
        self._listed = [sensor for kind in CLASSES for sensor in self.sensors.get(kind, ())]
        self._argv: list[str] | None = None
        self._said: set[str] = set()

    def _command(self) -> list[str]:
        """Return the command that reads all; made once, for a command as root is told in the log."""
        if self._argv is None:
            argv = ["sh", "-c", _SCRIPT, "sh", *[str(sensor["path"]) for sensor in self._listed]]
            self._argv = privileged(self.device, argv)
        return self._argv

    def read(self) -> Reading:
        """Read all of them by one command on the device.

        Raises:
            DeviceError: the device does not answer.
        """
        lines = run(self.device, self._command(), _TIMEOUT_S).split("\n")
        # One line each; where the device said something else, no line can be told from another.
        told = lines[:-1] if len(lines) == len(self._listed) + 1 else [""] * len(self._listed)
        said = dict(zip([sensor["name"] for sensor in self._listed], told, strict=True))
        temperatures, zones, unknown = {}, {}, {}
        for kind in [kind for kind in CLASSES if kind in self.sensors]:
            found: list[tuple[float, str, str]] = []
            wrong = []
            for sensor in self.sensors[kind]:
                text = said[sensor["name"]].strip()[:40]
                celsius = _celsius(text, float(sensor["scale"]))
                if isinstance(celsius, str):
                    wrong.append(f"{sensor['name']} {celsius}")
                else:
                    found.append((celsius, sensor["name"], text))
            if found:
                temperatures[kind], *rest = max(found)
                zones[kind] = (rest[0], rest[1])
                self._say(wrong)
            else:
                unknown[kind] = ", ".join(wrong)[:200]
        return Reading(temperatures, zones, unknown)

    def _say(self, wrong: Iterable[str]) -> None:
        """Tell once of each zone that is left out of its class."""
        for text in wrong:
            if text not in self._said:
                self._said.add(text)
                log.info("%s: the temperature of %s and is left out", self.device.id, text)


class HeatGate:
    """Lets a run begin when its device is cool, or says why it did not.

    Args:
        thermometer: of the device.
        wanted: `heat` of the experiment.
        first: degC by class when the experiment began on this device; None when it begins now.
        clock, sleep: as those of `time`.
    """

    def __init__(
        self,
        thermometer: Thermometer,
        wanted: Mapping[str, Any],
        first: Mapping[str, float] | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.thermometer = thermometer
        self.wanted = wanted
        self.first = first
        self._clock, self._sleep = clock, sleep
        # What the zones of a class said that did not move through a run, by class.
        self._frozen: dict[str, tuple[str, str]] = {}
        self._moved: dict[str, tuple[tuple[str, str], float]] = {}
        for kind, limit in _LIMIT.items():
            if limit in wanted and kind not in thermometer.sensors and kind != "gpu":
                log.warning(
                    "%s has no temperature sensor of its %s: it is not waited for",
                    thermometer.device.id,
                    kind,
                )

    def wait(self, what: str) -> dict[str, Any]:
        """Wait until the device is cool and return `heat` of the run's `meta.json`.

        Args:
            what: the run that is to begin, for messages.

        Raises:
            DeviceError: it is not cool at the deadline, and the experiment refuses such a run; or the device
                does not answer.
        """
        begun = self._clock()
        if not self.thermometer.sensors:
            return self._record(Reading({}, {}, {}), 0.0, None)
        unknown_since: float | None = None
        told_at = -1e9
        while True:
            reading = self._checked(self.thermometer.read())
            now = self._clock()
            waited, hot = now - begun, self._hot(reading, now)
            if not hot:
                break
            waits_for = set(hot) & set(reading.unknown)
            unknown_since = (now if unknown_since is None else unknown_since) if waits_for else None
            left = float(self.wanted["deadline_s"]) - waited
            if left <= 0 or (unknown_since is not None and now - unknown_since >= _UNKNOWN_S):
                return self._record(reading, waited, self._settle(what, hot, waited))
            if now - told_at >= (10.0 if waited < 300 else 30.0):
                told_at = now
                log.info(
                    "waiting for %s to cool: %s (%.0f s waited, %.0f s left)",
                    self.thermometer.device.id,
                    ", ".join(hot.values()),
                    waited,
                    left,
                )
            self._sleep(min(1.0 if waited < 60 else 2.0 if waited < 300 else 5.0, max(left, 0.01)))
        if waited >= 1:
            log.info("%s is cool after %.0f s: %s", self.thermometer.device.id, waited, reading)
        return self._record(reading, waited, None)

    def ran(self, folder: Path) -> None:
        """Look at how the CPU's zones moved through a workload's run that its probe recorded in `folder`."""
        record = read_json(folder / "probe.json")
        counts = [record["sensors"].get(sensor["name"]) for sensor in self.thermometer.sensors.get("cpu", ())]
        read = [count for count in counts if count and count["reads"] - count["unreadable"] >= _READS]
        if (record["end_us"] - record["start_us"]) / 1e6 < _RUN_S or not read:
            return
        self._frozen.pop("cpu", None)
        if all(count["changes"] == 0 for count in read):
            zone = self.thermometer.read().zones.get("cpu")
            if zone is not None:
                self._frozen["cpu"] = zone

    def _checked(self, reading: Reading) -> Reading:
        """Take the classes out of a reading whose zones are known not to move."""
        temperatures, unknown = dict(reading.temperatures), dict(reading.unknown)
        for kind, zone in list(self._frozen.items()):
            if reading.zones.get(kind, zone) != zone:
                del self._frozen[kind]
            elif kind in temperatures:
                del temperatures[kind]
                unknown[kind] = f"{zone[0]} did not move through the run before, it says {zone[1]}"
        return Reading(temperatures, reading.zones, unknown)

    def _most(self, kind: str) -> float | None:
        """Return the highest temperature at which a class is cool; None when the experiment asks for none."""
        allowed = [float(self.wanted[_LIMIT[kind]])] if _LIMIT[kind] in self.wanted else []
        back = self.wanted.get("above_first_k")
        if back is not None and self.first is not None and self.first.get(kind) is not None:
            allowed.append(self.first[kind] + float(back))
        return max(allowed, default=None)

    def _hot(self, reading: Reading, now: float) -> dict[str, str]:
        """Return the classes that are not cool, each with what is wrong in words."""
        found = {}
        for kind in CLASSES:
            most, celsius = self._most(kind), reading.temperatures.get(kind)
            if most is None or (celsius is not None and celsius <= most):
                continue
            if celsius is None:
                if kind in reading.unknown:
                    found[kind] = f"{kind} not known ({reading.unknown[kind]}), at most {most:.1f} degC"
                continue
            found[kind] = f"{kind} {celsius:.1f} degC, at most {most:.1f} degC"
            zone = reading.zones[kind]
            before, since = self._moved.get(kind, (zone, now))
            self._moved[kind] = (zone, since if before == zone else now)
            if before == zone and now - since >= _STUCK_S:
                found[kind] += f" ({zone[0]} has not moved for {now - since:.0f} s)"
        return found

    def _settle(self, what: str, hot: Mapping[str, str], waited: float) -> str:
        """Refuse the run, or return why it is marked."""
        device = self.thermometer.device.id
        why = f"{', '.join(hot.values())}, after a wait of {waited:.0f} s"
        if self.wanted["at_deadline"] == "refuse":
            raise DeviceError(
                f"{device} is not cool enough to begin: {why}",
                where=what,
                do="Let it cool, away from the charger, and start again (finished runs are kept); or raise "
                "the limits or deadline_s of the experiment's heat, or write at_deadline: continue there",
            )
        log.warning("%s begins hot, and the run is marked: %s", device, why)
        return f"it began hot: {why}"

    def _record(self, reading: Reading, waited: float, hot: str | None) -> dict[str, Any]:
        rounded = {kind: round(celsius, 2) for kind, celsius in reading.temperatures.items()}
        # An experiment begins with its first run that is not marked: a hot one would be its own excuse.
        if self.first is None and hot is None:
            self.first = rounded
        first = self.first or {}
        sensors = self.thermometer.sensors
        missing = {kind: "the device has no sensor of it" for kind in CLASSES if kind not in sensors}
        return {
            "temperatures": {kind: rounded.get(kind) for kind in CLASSES},
            "first": {kind: first.get(kind) for kind in CLASSES},
            "missing": {**missing, **reading.unknown},
            "waited_s": round(waited, 1),
            "hot": hot,
        }


def campaign_first(store: RawStore, jobs: Iterable[Job]) -> Mapping[str, float] | None:
    """Return the temperatures at which an experiment began on a device; None when no run of it counts yet.

    Args:
        store: the raw store.
        jobs: of the experiment's cells on the device.
    """
    found = []
    for stored in [stored for job in jobs for stored in store.complete(job.key)]:
        heat = stored.meta.get("heat") or {"first": {}}
        first = {kind: float(value) for kind, value in heat["first"].items() if value is not None}
        if first:
            found.append((stored.meta["started"], stored.meta["position"], first))
    return min(found, key=lambda each: each[:2])[2] if found else None


def heat_gate(
    device: Device,
    identity: Mapping[str, Any],
    wanted: Mapping[str, Any],
    store: RawStore,
    jobs: Iterable[Job],
) -> HeatGate | None:
    """Return the gate of a block; None when its experiment has no `heat`. Arguments as above."""
    if not wanted:
        return None
    return HeatGate(Thermometer(device, identity), wanted, campaign_first(store, jobs))


def shaping(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `heat` that decides at which temperatures runs begin: a part of their key."""
    return {name: wanted[name] for name in sorted(wanted) if name not in ("deadline_s", "at_deadline")}


def _celsius(text: str, scale: float) -> float | str:
    """Return the temperature that a zone's words say, or why they say none."""
    match = _NUMBER.match(text)
    if not match:
        return f"says {text!r}" if text else "cannot be read"
    raw = float(match[0])
    if raw == 0:
        return "says 0, as a zone does that is off"
    if not _COLDEST < raw * scale < _HOTTEST:
        return f"says {raw * scale:.1f} degC, which cannot be"
    return raw * scale
