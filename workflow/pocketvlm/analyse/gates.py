"""Gates: checks that withhold a number from the tables and say why. The number itself stays in the data.

A gate's clauses are parted by `; `, which no clause holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from pocketvlm.analyse import comparable, records
from pocketvlm.analyse.bounds import Limit, limits
from pocketvlm.analyse.marks import MARKS
from pocketvlm.analyse.metrics import SENSED
from pocketvlm.analyse.placement import NOT_ASKED
from pocketvlm.analyse.variation import UNSTEADY, unsteady
from pocketvlm.errors import ConfigError
from pocketvlm.frameworks import FOREIGN, JUDGED
from pocketvlm.provenance import read_json

THRESHOLDS = (
    "min_sensor_coverage_percent",
    "min_samples_per_phase",
    "min_phase_ms",
    "agreement_percent",
    "agreement_ms",
    "max_probe_cpu_percent",
    "max_wake_late_p99_ms",
    "max_clock_drop_percent",
    "max_cv_percent",
    "max_low_memory_kills",
    "max_rest_above_run_percent",
)

Row = dict[str, Any]
# What describes the check itself stays visible, or nobody could see by how much it failed.
_EVIDENCE = (
    "agreement.",
    "reported.",
    "unannounced.",
    "token_budget",
    "tokens",
    "sensor_coverage",
    "probe_cpu",
    "wake_late_",
    "threads_misplaced",
    "layers",
    "vision_offloaded",
    "clock_",
    "low_memory_kills",
    "start_",
    "warmups_",
    *MARKS,
)


def _evidence(metric: str) -> bool:
    return metric.startswith(_EVIDENCE) and not metric.startswith("tokens_per_second")


def judge(
    metrics: pa.Table,
    thresholds: Mapping[str, float],
    *,
    bounds: Mapping[tuple[str, str, str], Limit] | None = None,
    cells: Mapping[str, str] | None = None,
    measured: Collection[str] | None = None,
) -> pa.Table:
    """Return the metrics with a gate each: empty, or why the number is withheld from the tables.

    Args:
        metrics: the record `metrics`.
        thresholds: some of THRESHOLDS; a gate whose threshold is absent is open.
        bounds: physical bounds by (cell, phase, metric); a metric that has none passes.
        cells: the cell of each run, for its bounds and to compare it with the others of its cell.
        measured: the runs that count, of which alone it is asked how much they differ; all when None.

    Raises:
        ConfigError: an unknown threshold, or only one of the two for agreement.
    """
    unknown = sorted(set(thresholds) - set(THRESHOLDS))
    if unknown:
        raise ConfigError(
            f"unknown threshold {', '.join(unknown)}",
            where="analysis.gates in config/config.yaml",
            do=f"use some of {', '.join(THRESHOLDS)}",
        )
    if ("agreement_percent" in thresholds) != ("agreement_ms" in thresholds):
        raise ConfigError(
            "agreement_percent and agreement_ms belong together",
            where="analysis.gates in config/config.yaml",
            do="give both or neither",
        )
    rows: list[Row] = metrics.to_pylist()
    by_run: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        row["gate"] = ""
        by_run[row["run"]].append(row)
    for run, of_run in by_run.items():
        _judge_run(of_run, thresholds)
        comparable.withhold(of_run, _close)
        _judge_bounds(of_run, (cells or {}).get(run), bounds or {})
    if "max_cv_percent" in thresholds:
        counted = {run: cell for run, cell in (cells or {}).items() if measured is None or run in measured}
        _judge_cells(by_run, counted, thresholds["max_cv_percent"])
    return records.table("judged", rows)


def judge_file(
    metrics: str | Path,
    thresholds: Mapping[str, float],
    destination: str | Path,
    *,
    bounds: str | Path,
    block: str | Path,
) -> None:
    """Judge the record `metrics` of a block and write `judged/<device>.parquet`; errors as `judge`.

    Args:
        metrics: the record.
        thresholds: as for `judge`.
        destination: the file to write.
        bounds: `bounds/<device>.csv`.
        block: `blocks/<device>.json`, which names the cell of each run.
    """
    entries = read_json(block)["runs"]
    cells = {entry["run"]: entry["cell"] for entry in entries if entry["cell"]}
    measured = {entry["run"] for entry in entries if entry["role"] == "measured"}
    record = records.read(metrics, "metrics")
    table = judge(record, thresholds, bounds=limits([bounds]), cells=cells, measured=measured)
    records.write(destination, "judged", table)


def _judge_run(rows: list[Row], thresholds: Mapping[str, float]) -> None:
    value = {(row["phase"], row["metric"]): row["value"] for row in rows}

    def above(key: str, threshold: str) -> bool:
        number = value.get(("run", key))
        return threshold in thresholds and number is not None and number > thresholds[threshold]

    placed = next((row["reason"] for row in rows if row["metric"] == "threads_misplaced"), "")
    if placed and placed != NOT_ASKED:
        _close(rows, placed)
    tokens, budget = value.get(("decode", "tokens")), value.get(("decode", "token_budget"))
    # What a framework does not count cannot be compared: the reason stands in the place of the count.
    if budget is not None and tokens is not None and tokens != budget:
        _close(rows, f"the run sampled {_short(tokens)} tokens, its budget is {_short(budget)}")
    if above("probe_cpu", "max_probe_cpu_percent"):
        cost = value["run", "probe_cpu"]
        limit = thresholds["max_probe_cpu_percent"]
        _close(rows, f"the probe used {_short(cost)} % of a core, more than {_short(limit)} %")
    if above("wake_late_p99", "max_wake_late_p99_ms"):
        late, limit = value["run", "wake_late_p99"], thresholds["max_wake_late_p99_ms"]
        _close(rows, f"wake-ups were {_short(late)} ms late (p99), more than {_short(limit)} ms")
    if above("clock_drop", "max_clock_drop_percent"):
        fell, limit = value["run", "clock_drop"], thresholds["max_clock_drop_percent"]
        _close(
            rows,
            f"the clock was {_short(fell)} % below the cell's first seconds, {_short(limit)} % is allowed",
        )
    if above("low_memory_kills", "max_low_memory_kills"):
        count = _short(value["run", "low_memory_kills"])
        _close(rows, f"memory ran short during the run: {count} lines of the log tell of a killed process")
    if "max_rest_above_run_percent" in thresholds:
        _judge_baseline(rows, value, thresholds["max_rest_above_run_percent"])
    for row in [row for row in rows if row["metric"] in MARKS and row["value"]]:
        _close(rows, row["reason"])
    sensed = [row for row in rows if row["metric"].startswith(SENSED)]
    coverage = value.get(("run", "sensor_coverage"))
    least = thresholds.get("min_sensor_coverage_percent")
    if least is not None and coverage is not None and coverage < least:
        _close(sensed, f"{_short(coverage)} % of the readings were taken, {_short(least)} % are needed")
    fewest = thresholds.get("min_samples_per_phase")
    if fewest is not None:
        for row in sensed:
            if row["samples"] is not None and row["samples"] < fewest:
                _close([row], f"{row['samples']} of the {_short(fewest)} samples that a phase needs")
    shortest = thresholds.get("min_phase_ms")
    if shortest is not None:
        for row in rows:
            length = value.get((row["phase"], "duration"))
            rate = row["metric"] == "tokens_per_second" or row in sensed
            if rate and length is not None and length < shortest:
                _close([row], f"the phase lasted {_short(length)} ms, {_short(shortest)} ms are needed")
    if "agreement_percent" in thresholds:
        _judge_agreement(rows, value, thresholds["agreement_percent"], thresholds["agreement_ms"])


def _judge_baseline(rows: list[Row], value: Mapping[tuple[str, str], float | None], percent: float) -> None:
    """Withhold what is net of a baseline that took more than the run: something else ran while it rested."""
    power, net = value.get(("run", "power")), value.get(("run", "power_net"))
    if power is None or net is None or power - net <= power * (1 + percent / 100):
        return
    found = f"the device took {_short(power - net)} W at rest and {_short(power)} W in the run"
    _close(
        [row for row in rows if row["metric"] in ("power_net", "energy_net")],
        f"{found}, {_short(percent)} % more is allowed: the baseline is not of a device at rest",
    )


def _judge_bounds(
    rows: Iterable[Row], cell: str | None, bounds: Mapping[tuple[str, str, str], Limit]
) -> None:
    """Withhold what is faster than its physical bound: something was measured wrong."""
    for row in rows:
        limit = bounds.get((cell, row["phase"], row["metric"])) if cell else None
        excess = limit.beyond(row["value"]) if limit and row["value"] is not None else None
        if limit is None or excess is None:
            continue
        unit = "" if row["unit"] == "1" else f" {row['unit']}"
        _close(
            [row],
            f"measured {_short(row['value'])}{unit} is beyond the physical bound of "
            f"{_short(limit.bound)}{unit} ({limit.kind}) by {_short(100 * excess)} %, "
            f"{_short(100 * limit.margin)} % are allowed for the error of the peak",
        )


def _judge_cells(by_run: Mapping[str, list[Row]], cells: Mapping[str, str], most: float) -> None:
    """Withhold the runs of a cell that differ too much: no number stands for all of them."""
    found = unsteady(by_run, cells, most)
    for run, cell in cells.items():
        if cell in found:
            cv, what, count = found[cell]
            differ = f"{_short(cv)} % ({what}, coefficient of variation over {count} runs)"
            _close(by_run.get(run, ()), f"{UNSTEADY} {differ}, {_short(most)} % is allowed")


def disagreement(agreement_percent: float, reported_ms: float, unannounced_ms: float) -> tuple[float, float]:
    """Return by how many percent and milliseconds observed and reported differ beyond what is explained.

    Args:
        agreement_percent: 100 (observed - reported) / reported.
        reported_ms: as the framework reports.
        unannounced_ms: how much longer the observed time may be because of work that the counter leaves out.
    """
    excess = agreement_percent / 100.0 * reported_ms
    unexplained = max(0.0, excess - unannounced_ms) if excess > 0 else -excess
    return 100.0 * unexplained / reported_ms, unexplained


def _judge_agreement(
    rows: list[Row], value: Mapping[tuple[str, str], float | None], percent: float, ms: float
) -> None:
    for row in rows:
        prefix, _, counter = row["metric"].partition(".")
        if prefix != "agreement" or counter not in JUDGED:
            continue
        reported = value.get((row["phase"], f"reported.{counter}"))
        if row["value"] is None or not reported:
            continue
        of_phase = [other for other in rows if other["phase"] == JUDGED[counter]]
        explained = value.get((row["phase"], f"unannounced.{counter}")) or 0.0
        limits = f"more than {_short(percent)} % and {_short(ms)} ms"
        differ = disagreement(row["value"], reported, explained)
        if differ[0] > percent and differ[1] > ms:
            found = f"differ by {_short(differ[0])} % and {_short(differ[1])} ms, {limits}"
            _close(of_phase, f"observed and reported {counter} {found}")
            continue
        differ = disagreement(row["value"], reported, 0.0)
        if counter in FOREIGN and differ[0] > percent and differ[1] > ms:
            rates = [other for other in of_phase if other["metric"] == "tokens_per_second"]
            _close(rates, f"{_short(differ[1])} ms of the phase are work of another kind, {limits}")


def _close(rows: Iterable[Row], why: str) -> None:
    for row in rows:
        # A number that is missing cannot be withheld: its reason says why there is none.
        if row["value"] is not None and not _evidence(row["metric"]):
            row["gate"] = f"{row['gate']}; {why}" if row["gate"] else why


def _short(number: float | None) -> str:
    if number is None:
        return "no"
    # Never with an exponent: the tables join texts that differ in their numbers only.
    return np.format_float_positional(number, precision=4, fractional=False, trim="-")
