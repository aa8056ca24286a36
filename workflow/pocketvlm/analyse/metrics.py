"""Every metric of a run; `docs/method.md` gives formula, unit and source of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketvlm.analyse.clocks import clock_means
from pocketvlm.analyse.gpuwork import gpu_time
from pocketvlm.analyse.phases import Interval, of_phase, without_interaction
from pocketvlm.analyse.placement import threads_misplaced
from pocketvlm.analyse.raw import Run
from pocketvlm.analyse.responsiveness import Responsiveness
from pocketvlm.analyse.sensors import BUSY, MIN_SAMPLES, Sensors, Series, Value
from pocketvlm.frameworks import PHASES, Report

MIB = 1 << 20
FIRST_TOKEN = "first_token"
"""Where a report says why it was not seen, among its phases."""

NO_COUNT = "the framework does not report how many tokens"
LOWER = {
    "duration": True,
    "time_to_first_token": True,
    "tokens_per_second": False,
    "inter_token_latency": True,
    "reported": True,
    "workload_cpu": True,
    "system_cpu": True,
    "rss_peak": True,
    "memory_available_min": False,
    "power": True,
    "energy": True,
    "temperature": True,
    "clock_mean": False,
    "clock_drop": True,
    "low_memory_kills": True,
    "wake_late": True,
    "missed_deadlines": True,
    "shell_round_trip": True,
    "jank_percent": True,
    "gpu_time": True,
    "threads_misplaced": True,
    "probe_cpu": True,
    "sensor_coverage": False,
}
"""Prefix of a metric to whether less of it is better; a metric of no entry is neither."""

SENSED = (
    "system_cpu",
    "workload_cpu",
    "gpu_busy",
    "gpu_frequency",
    "npu_busy",
    "cpu_frequency",
    "rss_peak",
    "memory_available_min",
    "power",
    "energy",
    "temperature_",
)
"""Prefixes of the metrics that stand on sensor samples."""


@dataclass(frozen=True)
class Metric:
    """One row of the metrics of a run; the columns of `docs/formats.md`."""

    phase: str
    metric: str
    value: float | None
    unit: str
    source: str
    samples: int | None = None
    reason: str = ""

    @property
    def lower_is_better(self) -> bool | None:
        """Whether less is better; None where neither is."""
        return next((lower for prefix, lower in LOWER.items() if self.metric.startswith(prefix)), None)


def compute(
    run: Run,
    intervals: Sequence[Interval],
    report: Report | None,
    identity: Mapping[str, Any],
    *,
    idle_power: Value,
    budget: int | None = None,
    exact: bool = True,
) -> list[Metric]:
    """Return every metric of a run, those that cannot be had as NA with the reason.

    Args:
        run: the recorded run.
        intervals: its phases.
        report: its output, understood; None for an idle run, which has only metrics of the run as a whole.
        identity: the device's `identity.json`.
        idle_power: mean power of the block's idle run in watts.
        budget: how many tokens the workload may sample.
        exact: whether it must sample all of them, because the end of the text is ignored.
    """
    sensors = Sensors(run, identity)
    phases = ("run",) if report is None else (*PHASES, "run")
    absent = {} if report is None else dict(report.unobservable)
    rows: list[Metric] = []
    responsive = Responsiveness(run)
    for phase in phases:
        spans = of_phase(intervals, phase)
        if phase not in absent and not spans:
            absent[phase] = f"the run has no time in the phase {phase}"
        reason = absent.get(phase, "")
        length = None if reason else sum(end - start for start, end in spans) * 1e-3
        rows.append(Metric(phase, "duration", length, "ms", "observed", None, reason))
        for name, unit, source, value in _sensed(phase, spans, sensors, idle_power, skip=reason):
            rows.append(Metric(phase, name, value.value, unit, source, value.samples, value.reason))
        for name, unit, source, value in responsive.of_phase(phase, spans, skip=reason):
            rows.append(Metric(phase, name, value.value, unit, source, value.samples, value.reason))
    if report is not None:
        rows += _from_output(report, intervals, absent)
        rows += _per_token(report, rows)
        ends = "" if exact else f"the answer may end before the {budget} tokens that it is allowed"
        rows.append(Metric("decode", "token_budget", budget if exact else None, "1", "derived", reason=ends))
    rows += _from_probe(run, identity)
    for name, unit, source, value in gpu_time(run, identity):
        rows.append(Metric("run", name, value.value, unit, source, value.samples, value.reason))
    return rows


def _sensed(
    phase: str,
    spans: Sequence[tuple[int, int]],
    sensors: Sensors,
    idle_power: Value,
    *,
    skip: str,
) -> Iterator[tuple[str, str, str, Value]]:
    """Give (metric, unit, source, value) of all that stands on samples; NA because of `skip` if not empty."""

    def guard(measure: Callable[[], Value]) -> Value:
        return Value(None, None, skip) if skip else measure()

    busy = [f"cpu.{field}" for field in BUSY]
    yield "system_cpu", "%", "sensor", guard(lambda: sensors.utilisation("cpu_time", busy, spans))
    both = ("user", "system")
    yield "workload_cpu", "%", "sensor", guard(lambda: sensors.utilisation("workload_cpu_time", both, spans))
    gauges = (
        ("gpu_busy", "gpu_busy", "gpu", "%", 1.0),
        ("gpu_frequency", "gpu_frequency", "gpu", "MHz", 1e-6),
        ("npu_busy", "npu_busy", "npu", "%", 1.0),
    )
    for name, quantity, component, unit, factor in gauges:
        found = sensors.find(quantity, component)
        missing = Value(None, 0, "" if found else sensors.why_missing(quantity))
        value = guard(lambda f=found, m=missing, x=factor: sensors.mean(f, spans, x) if f else m)  # type: ignore[misc]
        yield name, unit, "sensor", value
    policies = sensors.find("cpu_frequency")
    for series in policies:
        value = guard(lambda s=series: sensors.mean([s], spans, 1e-6))  # type: ignore[misc]
        yield f"cpu_frequency.{series.component}", "MHz", "sensor", value
    if not policies:
        none = Value(None, 0, sensors.why_missing("cpu_frequency"))
        yield "cpu_frequency", "MHz", "sensor", guard(lambda: none)
    yield from clock_means(sensors, spans, guard)
    yield "rss_peak", "MiB", "sensor", guard(lambda: _extreme(sensors, "workload_rss", "", spans))
    if phase == "run":
        value = guard(lambda: _extreme(sensors, "memory", "available", spans, smallest=True))
        yield "memory_available_min", "MiB", "sensor", value
    yield from _temperatures(spans, sensors, guard)
    yield from _energy(spans, guard(lambda: sensors.energy(spans)), idle_power)
    for percentile in (50, 99):
        late = guard(lambda p=percentile: sensors.wake_late(spans, p))  # type: ignore[misc]
        yield f"wake_late_p{percentile}", "ms", "probe", late


def _extreme(
    sensors: Sensors,
    quantity: str,
    component: str,
    spans: Sequence[tuple[int, int]],
    *,
    smallest: bool = False,
) -> Value:
    found = sensors.find(quantity, component)
    if not found:
        return Value(None, 0, sensors.why_missing(quantity, component=component))
    value = sensors.extreme(found, spans, smallest=smallest)
    return Value(None if value.value is None else value.value / MIB, value.samples, value.reason)


def _temperatures(
    spans: Sequence[tuple[int, int]], sensors: Sensors, guard: Callable[[Callable[[], Value]], Value]
) -> Iterator[tuple[str, str, str, Value]]:
    """Give start, maximum and rise of each class of zones; the hottest zone of a class stands for it."""
    classes = sorted(
        {
            s.component.split(".")[0]
            for s in (*sensors.find("temperature"), *sensors.doubted)
            if s.quantity == "temperature"
        }
    )
    if not classes:
        none = Value(None, 0, sensors.why_missing("temperature"))
        for name, unit in (("start", "degC"), ("max", "degC"), ("rise", "K")):
            yield f"temperature_{name}", unit, "sensor", guard(lambda: none)
    for kind in classes:
        zones = [s for s in sensors.find("temperature") if s.component.split(".")[0] == kind]
        top = guard(lambda z=zones, k=kind: _hottest(sensors, z, k, spans))  # type: ignore[misc]
        start = rise = top
        if top.value is not None:
            first = sensors.at(zones, spans[0][0])
            hottest = max(top.value, first)
            top = Value(hottest, top.samples)
            start = Value(first, top.samples)
            rise = Value(hottest - first, top.samples)
        yield f"temperature_start.{kind}", "degC", "sensor", start
        yield f"temperature_max.{kind}", "degC", "sensor", top
        yield f"temperature_rise.{kind}", "K", "sensor", rise


def _hottest(sensors: Sensors, zones: Sequence[Series], kind: str, spans: Sequence[tuple[int, int]]) -> Value:
    doubt = sensors.doubtful("temperature", kind)
    return Value(None, None, doubt) if doubt else sensors.extreme(zones, spans)


def _energy(
    spans: Sequence[tuple[int, int]], energy: Value, idle: Value
) -> Iterator[tuple[str, str, str, Value]]:
    seconds = sum(end - start for start, end in spans) * 1e-6
    power = power_net = net = energy
    if energy.value is not None:
        power = Value(energy.value / seconds, energy.samples)
        power_net = net = Value(None, energy.samples, idle.reason)
        if idle.value is not None:
            net = Value(energy.value - idle.value * seconds, energy.samples)
            power_net = Value(energy.value / seconds - idle.value, energy.samples)
    yield "power", "W", "derived", power
    yield "power_net", "W", "derived", power_net
    yield "energy", "J", "derived", energy
    yield "energy_net", "J", "derived", net


def _from_output(
    report: Report, intervals: Sequence[Interval], absent: Mapping[str, str]
) -> Iterator[Metric]:
    lengths = {
        phase: sum(end - start for start, end in of_phase(intervals, phase)) * 1e-3 for phase in PHASES
    }
    first = None
    if report.first_token_us is not None:
        first = (
            sum(end - start for start, end in without_interaction(intervals, report.first_token_us)) * 1e-3
        )
    unseen = absent.get(FIRST_TOKEN, "when the answer began was not seen") if first is None else ""
    yield Metric("run", "time_to_first_token", first, "ms", "observed", None, unseen)
    why = unseen or absent.get("load", "")
    after = None if why or first is None else first - lengths["load"]
    yield Metric("run", "time_to_first_token_after_load", after, "ms", "observed", None, why)
    for phase in ("decode", "text_prefill", "image_prefill"):
        tokens = report.tokens.get(phase)
        why = "" if tokens is not None else NO_COUNT
        yield Metric(phase, "tokens", tokens, "1", "framework", None, why)
        # The first answer token ends the prefill: what decodes in this phase are the tokens after it.
        made = report.decode_steps if phase == "decode" else tokens
        why = absent.get(phase, "") or why or _none_of(made)
        rate = None if why or made is None else made / (lengths[phase] * 1e-3)
        yield Metric(phase, "tokens_per_second", rate, "1/s", "derived", None, why)
    yield from _latencies(report, absent.get("decode", ""))
    for counter in report.counters:
        name, phase = f"reported.{counter.name}", counter.phase
        why = counter.reason if counter.value_ms is None else ""
        yield Metric(phase, name, counter.value_ms, "ms", "framework", None, why)
        hidden = next((absent[p] for p in counter.covers if p in absent), "")
        why = why or (counter.reason if not counter.covers else "") or hidden
        if not why and not counter.value_ms:
            why = f"the framework reports 0 ms for {counter.name}"
        agreement = None
        if not why and counter.value_ms:
            observed = sum(lengths[p] for p in counter.covers)
            agreement = 100.0 * (observed - counter.value_ms) / counter.value_ms
        yield Metric(phase, f"agreement.{counter.name}", agreement, "%", "derived", None, why)
        if counter.covers:
            more = None if why else counter.unannounced_ms
            yield Metric(phase, f"unannounced.{counter.name}", more, "ms", "observed", None, why)


def _none_of(tokens: int | None) -> str:
    """Return why nothing can be told for each of so many tokens; empty when it can."""
    return NO_COUNT if tokens is None else "" if tokens else "no token falls into the phase"


def _latencies(report: Report, absent: str) -> Iterator[Metric]:
    gaps = np.diff(report.token_times_us) * 1e-3
    why = absent
    if not why and report.tokens.get("decode") is None:
        why = NO_COUNT
    elif not why and not report.token_times_us.size:
        why = "when each token of the answer came was not seen"
    elif not why and report.token_times_us.size != report.tokens.get("decode"):
        why = (
            f"the answer arrived in {report.token_times_us.size} pieces, the framework "
            f"reports {report.tokens.get('decode')} tokens"
        )
    if not why and gaps.size < MIN_SAMPLES:
        why = f"{gaps.size} gaps between tokens, {MIN_SAMPLES} are needed"
    for percentile in (50, 99):
        value = None if why else float(np.percentile(gaps, percentile))
        yield Metric(
            "decode", f"inter_token_latency_p{percentile}", value, "ms", "observed", int(gaps.size), why
        )


def _per_token(report: Report, rows: Sequence[Metric]) -> list[Metric]:
    found = []
    for name in ("energy", "energy_net"):
        row = next(r for r in rows if r.phase == "decode" and r.metric == name)
        value, why = None, row.reason
        if row.value is not None:
            why = _none_of(report.decode_steps)
            value = row.value / report.decode_steps if report.decode_steps else None
        found.append(Metric("decode", f"{name}_per_token", value, "J", "derived", row.samples, why))
    return found


def _from_probe(run: Run, identity: Mapping[str, Any]) -> Iterator[Metric]:
    cost = run.probe.get("probe_cpu_us")
    known = type(cost) is int and cost >= 0
    value = 100.0 * cost / run.wall_us if known and isinstance(cost, int) else None
    why = "" if known else "the probe did not report its CPU time"
    yield Metric("run", "probe_cpu", value, "%", "probe", None, why)
    placed = threads_misplaced(run)
    yield Metric("run", "threads_misplaced", placed.value, "1", "probe", placed.samples, placed.reason)
    coverage = _coverage(run, identity)
    yield Metric("run", "sensor_coverage", coverage.value, "%", "probe", None, coverage.reason)


def _coverage(run: Run, identity: Mapping[str, Any]) -> Value:
    """Return the share of the readings due that were taken, in percent: that of the worst group or sensor.

    The worst, for a stalled slow group must not hide behind the many samples of a fast one. Left out are
    sensors that were never readable, whose metrics are NA and say so, and the counters of single cores,
    on which no metric stands and which are gone while their core is off.
    """
    due: dict[str, int] = {}
    for name in run.groups:
        expected = run.probe["groups"][name].get("expected")
        if type(expected) is int and expected > 0:
            due[name] = expected
    if not due:
        return Value(None, None, "no sensor group was expected to be read")
    readings = run.probe.get("sensors")
    if not isinstance(readings, dict):
        return Value(None, None, "the probe did not report its readings")
    shares = [100.0 * run.groups[name].t_us.size / expected for name, expected in due.items()]
    for sensor in identity["sensors"]:
        counts = readings.get(sensor["name"])
        single_core = sensor["quantity"] == "cpu_time" and not sensor["component"].startswith("cpu.")
        if sensor["group"] not in due or not isinstance(counts, dict) or single_core:
            continue
        reads, failed = counts.get("reads"), counts.get("unreadable")
        if type(reads) is not int or type(failed) is not int:
            return Value(None, None, f"the probe did not report the readings of {sensor['name']}")
        if failed >= reads:
            continue
        # The last look at a process finds that it has ended.
        allowed = min(failed, 1) if "{pid}" in sensor["path"] else 0
        shares.append(100.0 * (reads - failed + allowed) / due[sensor["group"]])
    return Value(min(100.0, *shares))
