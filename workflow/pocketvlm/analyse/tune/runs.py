"""One run of a search from the raw store: what it took, through the same gates as any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.analyse import comparable, records
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.marks import noted
from pocketvlm.analyse.metrics import compute
from pocketvlm.analyse.parse import metric_row, understand, workload_of
from pocketvlm.analyse.phases import segment
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.search import Seen
from pocketvlm.errors import WorkloadError

_NO_IDLE = Value(None, None, "no idle baseline: a search has no idle run")
_CLASSES = {"cpu_celsius": ("cpu", "gpu"), "skin_celsius": ("skin",), "battery_celsius": ("battery",)}

Found = Mapping[tuple[str, str], Value]


def read_tune_run(
    folder: Path,
    meta_sha256: str | None,
    adapter: str,
    identity: Mapping[str, Any],
    thresholds: Mapping[str, float],
    objective: str,
) -> Seen:
    """Read a counted run of a search.

    Args:
        folder: `results/raw/<key>/<nn>`.
        meta_sha256: what the index says of its `meta.json`; None to believe it.
        adapter: of the framework.
        identity: the device's `identity.json`.
        thresholds: `analysis.gates` of the configuration.
        objective: a name of OBJECTIVES.

    Raises:
        IntegrityError: the run is not what was recorded.
    """
    run = read_run(folder, meta_sha256)
    place = run.meta["tune"]
    seen = {
        "candidate": place["candidate"],
        "rung": place["rung"],
        "round": run.meta["round"],
        "block": run.meta["block"],
        "run": run.name,
    }
    try:
        report = understand(run, adapter)
    except WorkloadError as error:
        nothing = Value(None, 0, error.what)
        return Seen(
            **seen,
            cost=nothing,
            energy_j=nothing,
            memory_mib=nothing,
            celsius=dict.fromkeys(_CLASSES, nothing),
        )
    budget, exact = workload_of(run)
    intervals = segment(report.boundaries, run.wall_us)
    computed = compute(run, intervals, report, identity, idle_power=_NO_IDLE, budget=budget, exact=exact)
    computed += [*noted(run.meta), *comparable.unmet(run.meta)]
    table = records.table("metrics", [metric_row(run.name, metric) for metric in computed])
    found = {
        (row["phase"], row["metric"]): Value(None, row["samples"], row["gate"])
        if row["gate"]
        else Value(row["value"], row["samples"], row["reason"])
        for row in judge(table, thresholds).to_pylist()
    }
    return Seen(
        **seen,
        cost=COSTS[objective](found),
        energy_j=found["run", "energy"],
        memory_mib=found["run", "rss_peak"],
        celsius={limit: _hottest(found, classes) for limit, classes in _CLASSES.items()},
    )


def _answer(found: Found) -> Value:
    whole, load = found["run", "duration"], found["load", "duration"]
    if whole.value is None or load.value is None:
        return whole if whole.value is None else load
    return Value((whole.value - load.value) / 1e3)


def _seconds(phase: str, metric: str) -> Callable[[Found], Value]:
    def of(found: Found) -> Value:
        value = found[phase, metric]
        return value if value.value is None else Value(value.value / 1e3)

    return of


def _per_token(found: Found) -> Value:
    rate = found["decode", "tokens_per_second"]
    return rate if not rate.value else Value(1.0 / rate.value)


COSTS: Mapping[str, Callable[[Found], Value]] = {
    "answer": _answer,
    "run": _seconds("run", "duration"),
    "first_token": _seconds("run", "time_to_first_token_after_load"),
    "decode": _per_token,
}
"""Seconds by objective (`config.tuning.OBJECTIVES`)."""


def _hottest(found: Found, classes: tuple[str, ...]) -> Value:
    """Return the highest temperature of some classes; NA when one that the device has is not known."""
    values = [value for one in classes if (value := found.get(("run", f"temperature_max.{one}"))) is not None]
    if not values:
        none = found.get(("run", "temperature_max"))
        return Value(None, 0, none.reason if none else f"the device has no sensor of its {classes[0]}")
    unknown = [value for value in values if value.value is None]
    return unknown[0] if unknown else max(values, key=lambda value: value.value or 0.0)
