"""Unit and sign of a battery's current, found by experiment: `calibration.json` of docs/formats.md.

By the ABI (Documentation/ABI/testing/sysfs-class-power) `current_now` is in uA; some phones tell mA, and
the sign differs by vendor. These findings are held against each other:

- *step*: the device is left alone, all its cores are kept busy, it is left alone again. More load moves the
  current towards discharging, on the cable, too: so the sign of the step is that of discharging.
- *counter*: what the battery gave by its charge counter, in uAh, against the integral of the current over the
  same time: both unit and sign.
- *size*: how large the current is, at rest or under load, which in one unit only is what a device can draw.
- *status*: a battery that says `Discharging` all the while has a current of that sign. It only contradicts.

The scale is one of a few values, so that another look at the same device finds the same one.
"""

from __future__ import annotations

import itertools
import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pocketvlm.devices.base import Device, run
from pocketvlm.devices.root import privileged

log = logging.getLogger(__name__)

# Ampere for one unit: uA and mA.
UNITS = {"uA": 1e-6, "mA": 1e-3}
# What flows from or into the battery of a phone, tablet or laptop that is awake: the larger of what it is at
# rest and under load, in A; and the most that flows at all.
_AMPERES = (0.02, 15.0)
_MOST_AMPERES = 30.0
# The counter and the integral may differ by so much and still speak of one unit.
_AGREE = 1.7
_MIN_SAMPLES = 10
_ROUND_SECONDS = 6.0
DEFAULT_SECONDS = 90.0
_PERIOD_SECONDS = 0.1

# Prints a line a sample: seconds since boot, phase, current, voltage, charge counter, status, with a tab
# between them. Only builtins of mksh and dash but for `sleep`. The busy loops end by themselves when this
# shell is gone or time is up: a cable may fall out.
_SCRIPT = r"""
base=$1 counter=$2 cores=$3 samples=$4
sample() {
    current= volts= charge= status= now=
    { read -r current < "$base/current_now"; } 2>/dev/null
    { read -r volts < "$base/voltage_now"; } 2>/dev/null
    { read -r charge < "$base/$counter"; } 2>/dev/null
    { read -r status < "$base/status"; } 2>/dev/null
    read -r now rest < /proc/uptime
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$now" "$1" "$current" "$volts" "$charge" "$status"
}
watch() {
    left=$samples
    while [ "$left" -gt 0 ]; do sample "$1"; sleep 0.1; left=$((left - 1)); done
}
busy() {
    while [ -d "/proc/$1" ] && read -r now rest < /proc/uptime && [ "${now%%.*}" -lt "$2" ]; do
        i=0
        while [ "$i" -lt 5000 ]; do i=$((i + 1)); done
    done
}
watch idle
read -r now rest < /proc/uptime
end=$((${now%%.*} + samples / 2 + 10)) pids=
while [ "$cores" -gt 0 ]; do
    busy $$ "$end" </dev/null >/dev/null 2>&1 &
    pids="$pids $!" cores=$((cores - 1))
done
trap 'kill $pids 2>/dev/null' EXIT HUP INT TERM
watch load
kill $pids 2>/dev/null
wait $pids 2>/dev/null
watch idle
"""


@dataclass(frozen=True)
class Sample:
    """One look at the battery.

    Attributes:
        t_s: seconds since the device booted.
        phase: `idle` or `load`.
        current, voltage, charge: what the files say, as numbers; None where one cannot be read or says none.
        status: what the file says, None where it cannot be read.
    """

    t_s: float
    phase: str
    current: float | None
    voltage: float | None
    charge: float | None
    status: str | None


@dataclass(frozen=True)
class Findings:
    """What the series shows.

    Attributes:
        sign: of discharging, 1 or -1; None where it does not show.
        unit: `uA` or `mA`; None where it does not show.
        step, counter, size: in words, what each of the three found.
        told: the same without numbers, which differ from one look to the next.
        conflict: the findings that exclude each other, empty when none do.
        moved: whether the charge counter moved enough to be held against the current.
    """

    sign: int | None
    unit: str | None
    step: str
    counter: str
    size: str
    told: str
    conflict: tuple[str, ...]
    moved: bool

    @property
    def scale(self) -> float | None:
        """Ampere for one unit of current_now, positive while discharging; None where it is not known."""
        if self.sign is None or self.unit is None or self.conflict:
            return None
        return self.sign * UNITS[self.unit]

    @property
    def reason(self) -> str:
        """Why there is no scale; empty where there is one."""
        if self.conflict:
            return f"the findings exclude each other: {'; '.join(self.conflict)}"
        return "" if self.scale is not None else "; ".join((self.step, self.counter, self.size))


def analyse(samples: Sequence[Sample]) -> Findings:
    """Return what a recorded series shows of the current's unit and sign; a pure function."""
    read = [sample for sample in samples if sample.current is not None]
    enough = all(sum(sample.phase == phase for sample in read) >= _MIN_SAMPLES for phase in ("idle", "load"))
    if not enough:
        seen = "nothing" if not read else f"only {len(read)} times what it said"
        return _nothing(
            f"current_now could not be judged: {seen} in {len(samples)} looks was a number",
            "current_now could not be read often enough",
        )
    if max(abs(sample.current or 0.0) for sample in read) > _MOST_AMPERES / UNITS["uA"]:
        return _nothing(
            f"current_now is absurd: beyond {_MOST_AMPERES:g} A even in uA", "current_now says absurd values"
        )
    size, step = _step(read)
    by_step = None if size is None else int(math.copysign(1, size))
    by_counter, counter = _counter(read)
    by_size, words = _size(read)
    conflict: tuple[str, ...] = ()
    sign, unit = by_counter or (by_step, by_size)
    if by_counter is not None:
        if unit is None or (by_step is not None and by_step != sign):
            conflict = (step, counter)
        elif by_size not in (None, unit):
            conflict = (words, counter)
    status = "" if conflict or sign is None else _against(read, sign)
    if status:
        conflict = (counter if by_counter else step, status)
    told = _told(by_step, by_size, by_counter, status)
    return Findings(sign, unit, step, counter, words, told, conflict, by_counter is not None)


def _told(step: int | None, size: str | None, counter: tuple[int, str | None] | None, status: str) -> str:
    """Return the findings in words that stay the same while they do."""
    ways = {1: "positive", -1: "negative"}
    by_step = "no step under load" if step is None else f"{ways[step]} while discharging by a step of load"
    by_size = f"{size} by its size" if size else "of no known unit by its size"
    by_counter = "nothing by the charge counter"
    if counter is not None:
        by_counter = f"{ways[counter[0]]} and {counter[1] or 'in no known unit'} by the charge counter"
    against = ", another sign by the status" if status else ""
    return f"{by_step}, {by_size}, {by_counter}{against}"


def _against(read: Sequence[Sample], sign: int) -> str:
    """Return in what a status of `Discharging` all the while contradicts a sign; empty where it does not."""
    middle = statistics.median(sample.current or 0.0 for sample in read)
    discharging = all((sample.status or "").strip() == "Discharging" for sample in read)
    if not discharging or middle * sign >= 0:
        return ""
    return f"the status was Discharging, and current_now {middle:.0f}"


def _nothing(why: str, told: str) -> Findings:
    return Findings(None, None, why, "the charge counter was not looked at", "no step", told, (), False)


def _step(read: Sequence[Sample]) -> tuple[float | None, str]:
    """Return by how much load raises the current, in its own unit, and in words; None where it shows no step.

    The load's median must lie on one side of what idling shows before and after it, by more than these differ
    from each other and by more than three standard errors of a median. A gauge that keeps its value over
    several looks counts as one reading.
    """
    parts = [list(group) for _, group in itertools.groupby(read, key=lambda sample: sample.phase)]
    steps: list[float] = []
    noise: list[float] = []
    for before, load, after in zip(parts, parts[1:], parts[2:], strict=False):
        if load[0].phase != "load":
            continue
        # What a gauge shows first still belongs to the time before: it tells means of a window.
        values = [
            [sample.current or 0.0 for sample in part[len(part) // 4 :]] for part in (before, load, after)
        ]
        if min(map(len, values)) < _MIN_SAMPLES // 2:
            continue
        medians = [statistics.median(part) for part in values]
        errors = [_error_of_median(part, middle) for part, middle in zip(values, medians, strict=True)]
        steps.append(medians[1] - (medians[0] + medians[2]) / 2)
        noise.append(max(3 * math.hypot(*errors), abs(medians[0] - medians[2])))
    if not steps:
        return None, "there was no load between two times of rest"
    size, sure = statistics.median(steps), statistics.median(noise)
    one_way = all(step * size > 0 for step in steps)
    if not one_way or abs(size) <= sure:
        return None, f"load changed current_now by {size:.0f}, no more than its noise of {sure:.0f}"
    return size, f"load moved current_now by {size:+.0f} (noise {sure:.0f}): {_signed(size)}"


def _signed(size: float) -> str:
    return f"{'positive' if size > 0 else 'negative'} while discharging"


def _error_of_median(values: Sequence[float], middle: float) -> float:
    """Return the standard error of a median, 1.2533 sigma / sqrt(n), by the median absolute deviation."""
    changed = 1 + sum(one != other for one, other in itertools.pairwise(values))
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * spread / math.sqrt(changed)


def _counter(read: Sequence[Sample]) -> tuple[tuple[int, str | None] | None, str]:
    """Return sign and unit by the charge counter (unit None: none fits), and in words; None: it says nothing.

    The time is that between the first and the last change of the counter, at which its value is exact; so a
    coarse counter says little only while it moves fewer than two steps.
    """
    told = [sample for sample in read if sample.charge is not None]
    if len(told) < _MIN_SAMPLES:
        return None, "there is no charge counter to hold it against"
    edges = [number for number in range(1, len(told)) if told[number].charge != told[number - 1].charge]
    if len(edges) < 2:
        return None, f"the charge counter moved {len(edges)} times, 2 are needed"
    span = told[edges[0] : edges[-1] + 1]
    charges = [sample.charge or 0.0 for sample in span]
    moved = charges[-1] - charges[0]
    way = sum(abs(one - other) for one, other in itertools.pairwise(charges))
    if abs(moved) < 0.5 * way:
        return None, f"the charge counter went to and fro: {moved:+.0f} uAh of {way:.0f}"
    pieces = [
        ((one.current or 0.0) + (other.current or 0.0)) / 2 * (other.t_s - one.t_s)
        for one, other in itertools.pairwise(span)
    ]
    total, gross = sum(pieces), sum(map(abs, pieces))
    if gross == 0:
        return None, f"current_now was 0 while the charge counter moved by {moved:+.0f} uAh"
    if abs(total) < 0.3 * gross:
        return None, "the battery charged and discharged by turns while the charge counter moved"
    # Charge given, in As, for one As of the current's own unit.
    scale = -moved * 3.6e-3 / total
    seconds = span[-1].t_s - span[0].t_s
    words = f"the charge counter moved by {moved:+.0f} uAh in {seconds:.1f} s: {scale:.2g} A for a unit"
    fits = [name for name, unit in UNITS.items() if 1 / _AGREE < abs(scale) / unit < _AGREE]
    return (int(math.copysign(1, scale)), fits[0] if fits else None), words


def _size(read: Sequence[Sample]) -> tuple[str | None, str]:
    """Return the unit in which the current is one that a device can draw, and in words; None: neither is."""
    low, high = _AMPERES
    largest = max(
        abs(statistics.median(sample.current or 0.0 for sample in read if sample.phase == phase))
        for phase in ("idle", "load")
    )
    fits = [name for name, unit in UNITS.items() if low <= largest * unit <= high]
    if len(fits) != 1:
        return None, f"a current of {largest:.0f} is none that a device draws, neither in uA nor in mA"
    return fits[0], f"in {fits[0]} the current is up to {largest * UNITS[fits[0]]:.2g} A"


def parse(printed: str) -> list[Sample]:
    """Return the samples of what the recorder printed; lines that are none are left out."""
    samples = []
    for line in printed.splitlines():
        words = line.split("\t")
        if len(words) == 6 and words[1] in ("idle", "load") and (now := _number(words[0])) is not None:
            current, voltage, charge = map(_number, words[2:5])
            samples.append(Sample(now, words[1], current, voltage, charge, words[5].strip()[:40] or None))
    return samples


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def calibrate(
    device: Device,
    config: Mapping[str, Any],
    battery: str | None,
    counter: str,
    cores: int,
) -> dict[str, Any]:
    """Return the content of calibration.json; the device is kept busy for some seconds.

    Args:
        device: a device that is held.
        config: its file of `config/devices`: `battery.calibration_s`, `battery.current_scale`.
        battery: folder of its battery, None where there is none whose current could be read.
        counter: the file in it that counts charge.
        cores: how many cores to keep busy.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
    """
    if battery is None:
        return _record(None, None, [], 0.0, "no current of a battery can be read")
    settings = config.get("battery", {})
    deadline = float(settings.get("calibration_s", DEFAULT_SECONDS))
    claimed = settings.get("current_scale")
    begun = time.monotonic()
    samples: list[Sample] = []
    while True:
        length = min(_ROUND_SECONDS, max(deadline, 3.0))
        log.info("battery of %s: what its current means is measured for %.0f s", device.id, length)
        count = str(max(_MIN_SAMPLES, round(length / 3 / _PERIOD_SECONDS)))
        folder = f"{device.sysfs_root}{battery}"
        argv = ["sh", "-c", _SCRIPT, "sh", folder, counter, str(cores), count]
        samples += parse(run(device, privileged(device, argv), length * 10 + 60))
        findings = analyse(samples)
        spent = time.monotonic() - begun
        # The counter confirms what the step shows; where it is coarse, more of it is awaited.
        if findings.conflict or (findings.moved and findings.scale is not None):
            break
        if spent + length > deadline:
            break
    return _record(findings, claimed, samples, spent, None)


def _record(
    findings: Findings | None,
    claimed: float | None,
    samples: Sequence[Sample],
    seconds: float,
    absent: str | None,
) -> dict[str, Any]:
    scale = findings.scale if findings else None
    reason = absent or (findings.reason if findings else "")
    told = absent or (findings.told if findings and findings.scale is None else "")
    if scale is not None and claimed is not None and not math.isclose(scale, claimed, rel_tol=1e-3):
        reason = (
            f"the device's file says {claimed:g} A for a unit, and it was found to be {scale:g}: "
            f"{findings.step if findings else ''}; {findings.counter if findings else ''}"
        )
        told = f"the device's file says {claimed:g} A for a unit, and an experiment {scale:g}"
        scale = None
    return {
        "format": 1,
        "current_scale": scale,
        "told": told or None,
        "reason": reason or None,
        "configured": claimed,
        "findings": asdict(findings) if findings else None,
        "seconds": round(seconds, 2),
        "columns": "t_s phase current_now voltage_now charge status",
        "samples": [_written(sample) for sample in samples[:5000]],
    }


def _written(sample: Sample) -> str:
    return " ".join("NA" if value is None else str(value) for value in asdict(sample).values())
