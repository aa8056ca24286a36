"""One run of a soak from the raw store: the metrics that every run has, through the same gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pocketvlm.analyse import comparable, records
from pocketvlm.analyse.figures import series
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.interaction import described
from pocketvlm.analyse.marks import noted
from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.offload import offloaded
from pocketvlm.analyse.parse import metric_row, samples_of, understand, workload_of
from pocketvlm.analyse.phases import segment
from pocketvlm.analyse.raw import Run, read_run
from pocketvlm.analyse.sensors import Sensors, Value

_NO_IDLE = Value(None, None, "no idle baseline: a soak has no idle run")
EXACT, GAUGE = "time in state", "gauge"
"""Where a clock comes from: how long each clock was in force, or what a gauge said now and then."""

# A clock's metric, from the best source to the one that must do, each with a component after it.
_CLOCKS = (("clock_mean.", EXACT), ("cpu_frequency.", GAUGE))


@dataclass(frozen=True)
class SoakRun:
    """One run of a soak.

    Attributes:
        name: `<key>/<nn>`.
        start_us, end_us: on the device's CLOCK_BOOTTIME.
        speed: tokens per second of decoding; NA with its reason or the gate that withholds it.
        power, energy: W and J of the whole run, the same.
        clocks: MHz by policy, and `gpu`, mean over the run; empty where none is seen.
        clock_source: EXACT, GAUGE or empty; of the CPU's clocks.
        why_no_clock: reason, where no CPU clock is seen.
        temperature_start, temperature_end, temperature_max: °C of the hottest zone by class.
        why_no_temperature: reason, where there is none.
    """

    name: str
    start_us: int
    end_us: int
    speed: Value
    power: Value
    energy: Value
    clocks: Mapping[str, float]
    clock_source: str
    why_no_clock: str
    temperature_start: Mapping[str, float]
    temperature_end: Mapping[str, float]
    temperature_max: Mapping[str, float]
    why_no_temperature: str

    @property
    def seconds(self) -> float:
        """Length of the run."""
        return (self.end_us - self.start_us) / 1e6


@dataclass(frozen=True)
class Read:
    """A run of a soak with its samples, as the record `samples` has them."""

    run: SoakRun
    samples: pd.DataFrame


def read_soak_run(
    folder: Path,
    meta_sha256: str | None,
    adapter: str,
    identity: Mapping[str, Any],
    thresholds: Mapping[str, float],
    backend: str = "cpu",
    statistics: Mapping[str, Any] | None = None,
) -> Read:
    """Read one run and its samples.

    Args:
        folder: `results/raw/<key>/<nn>`.
        meta_sha256: what the index says of its `meta.json`; None to believe it.
        adapter: of the cell's framework.
        identity: the device's `identity.json`.
        thresholds: `analysis.gates` of the configuration; without any, only a run with a
            wrong count of tokens is withheld.
        backend: where the cell is to compute: a run that was not there is withheld.
        statistics: by what the numbers of an app are found, as the cell's entry has it.

    Raises:
        IntegrityError: the run is not what was recorded.
        WorkloadError: its output cannot be understood.
    """
    run = described(read_run(folder, meta_sha256), {"statistics": statistics})
    report = understand(run, adapter)
    budget, exact = workload_of(run)
    intervals = segment(report.boundaries, run.wall_us)
    computed = compute(run, intervals, report, identity, idle_power=_NO_IDLE, budget=budget, exact=exact)
    computed += [*noted(run.meta), *comparable.unmet(run.meta), *offloaded(report.offload, backend)]
    samples = samples_of(run, intervals, identity).to_pandas()
    return Read(_judged(run, computed, identity, thresholds), samples)


def _judged(
    run: Run, computed: Sequence[Metric], identity: Mapping[str, Any], thresholds: Mapping[str, float]
) -> SoakRun:
    table = records.table("metrics", [metric_row(run.name, metric) for metric in computed])
    found = {
        (row["phase"], row["metric"]): _passed(row)
        for row in judge(table, thresholds).to_pylist()
        if row["phase"] in ("run", "decode")
    }
    start_us = run.probe["start_us"]
    clocks, source, why_no_clock = clocks_of(found)
    sensors = Sensors(run, identity)
    zones = sensors.find("temperature")
    classes = sorted({zone.component.split(".")[0] for zone in zones})
    ends = {
        name: sensors.at([zone for zone in zones if zone.component.split(".")[0] == name], run.wall_us)
        for name in classes
    }
    return SoakRun(
        name=run.name,
        start_us=start_us,
        end_us=start_us + run.wall_us,
        speed=found["decode", "tokens_per_second"],
        power=found["run", "power"],
        energy=found["run", "energy"],
        clocks=clocks,
        clock_source=source,
        why_no_clock=why_no_clock,
        temperature_start=_by_class(found, "temperature_start."),
        temperature_end=ends,
        temperature_max=_by_class(found, "temperature_max."),
        why_no_temperature="" if zones else sensors.why_missing("temperature"),
    )


def _passed(row: Mapping[str, Any]) -> Value:
    """Return a judged metric as what a table may show: a withheld number is its gate."""
    if row["gate"]:
        return Value(None, row["samples"], row["gate"])
    return Value(row["value"], row["samples"], row["reason"])


def _by_class(found: Mapping[tuple[str, str], Value], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value.value
        for (phase, name), value in found.items()
        if phase == "run" and name.startswith(prefix) and value.value is not None
    }


def clocks_of(found: Mapping[tuple[str, str], Value]) -> tuple[dict[str, float], str, str]:
    """Return clocks in MHz, the source of the CPU's, and why it has none."""
    gpu = found.get(("run", "gpu_frequency"))
    others = {"gpu": gpu.value} if gpu is not None and gpu.value is not None else {}
    for prefix, source in _CLOCKS:
        if clocks := _by_class(found, prefix):
            return {**clocks, **others}, source, ""
    reasons = [
        value.reason
        for (phase, name), value in found.items()
        if phase == "run" and name.startswith(("clock_mean", "cpu_frequency")) and value.reason
    ]
    return others, "", "; ".join(dict.fromkeys(reasons)) or "the device names no clock of its cores"


_BY_SECOND = {"temperature": "max", "power": "mean", "clock": "mean"}
_SERIES = ["quantity", "component", "unit", "t_s"]


def series_of(read: Read, begin_us: int) -> pd.DataFrame:
    """Return what the samples of a run say over the time of the soak.

    Args:
        read: the run.
        begin_us: when the soak began, on the device's clock.

    Returns:
        rows of quantity (`temperature`, `power`, `clock`), component, unit, t_s (whole seconds since the soak
        began) and value, a sample each. Power that the run's own power withholds has none.
    """
    run = read.run
    found = [
        ("temperature", name, "degC", values) for name, values in series.temperatures(read.samples).items()
    ]
    if run.power.value is not None:
        found.append(("power", "device", "W", series.power(read.samples)))
    clocks = series.gauge(read.samples, "cpu_frequency")
    found += [("clock", name, "MHz", values / 1e6) for name, values in clocks.items()]
    parts = []
    for quantity, component, unit, values in found:
        # The probe's first and last looks lie outside the run: before the first there is no soak yet.
        seconds = (values.index.to_numpy(dtype=float) + run.start_us - begin_us) // 1e6
        named = {"quantity": quantity, "component": component, "unit": unit}
        parts.append(
            pd.DataFrame({**named, "t_s": seconds.clip(min=0).astype(int), "value": values.to_numpy()})
        )
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*_SERIES, "value"])


def by_second(parts: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Return a row a second of what `series_of` gives of all runs of a soak.

    Of temperatures the highest of the second counts, of power and clocks the mean. Seconds in which nothing
    was sampled, such as those of a pause, have no row.
    """
    frame = pd.concat(parts).dropna(subset="value")
    rows: list[dict[str, Any]] = []
    for quantity, mine in frame.groupby("quantity", sort=True):
        grouped = mine.groupby(_SERIES, sort=True)["value"].agg(_BY_SECOND[str(quantity)]).reset_index()
        rows += [{str(name): value for name, value in row.items()} for row in grouped.to_dict("records")]
    return rows
