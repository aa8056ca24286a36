"""Parse a block: the raw runs of one device become the four Parquet records."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from pocketvlm.analyse import comparable, interaction, records
from pocketvlm.analyse.clocks import ClockDrops
from pocketvlm.analyse.marks import answered, noted
from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.offload import offloaded
from pocketvlm.analyse.phases import Interval, segment, whole
from pocketvlm.analyse.raw import REINDEX, REMEASURE, Run, read_run, run_folder
from pocketvlm.analyse.sanity import REAL
from pocketvlm.analyse.sensors import Sensors, Value
from pocketvlm.errors import IntegrityError, WorkloadError
from pocketvlm.frameworks import Report, grammar
from pocketvlm.provenance import read_json

log = logging.getLogger("pocketvlm")


def parse_block(
    index: Mapping[str, Any] | str | Path,
    raw_root: str | Path,
    identity: Mapping[str, Any] | str | Path,
    cells: Mapping[str, Any] | str | Path,
    destination: str | Path,
) -> None:
    """Write `phases`, `samples`, `metrics` and `answers` (.parquet) of a block into a folder.

    Equal input gives equal bytes.

    Args:
        index: `blocks/<device>.json`, its path or content.
        raw_root: `results/raw`.
        identity: `identity.json` of the device, its path or content.
        cells: `cells.json`, its path or content.
        destination: the folder to write to.

    Raises:
        IntegrityError: a raw run is not what the index says, or malformed.
        WorkloadError: a run's output cannot be understood; the message names the run.
    """
    index, identity, cells = _loaded(index), _loaded(identity), _loaded(cells)
    adapters = {cell["cell"]: cell["adapter"] for cell in cells["cells"]}
    backends = {cell["cell"]: cell["backend"] for cell in cells["cells"]}
    trained = {cell["cell"]: cell for cell in cells["cells"] if cell["weights_kind"] in REAL}
    by_cell = {cell["cell"]: cell for cell in cells["cells"]}
    clocks = ClockDrops(identity)
    entries = sorted(index["runs"], key=lambda entry: str(entry["run"]))
    rows: dict[str, list[dict[str, Any]]] = {"phases": [], "metrics": [], "answers": []}
    samples: list[pa.Table] = []
    root = Path(raw_root)
    idle = {
        entry["run"]: _idle_power(read_run(run_folder(root, entry["run"]), entry["meta_sha256"]), identity)
        for entry in entries
        if entry["role"] == "idle"
    }
    for entry in entries:
        run = read_run(run_folder(root, entry["run"]), entry["meta_sha256"])
        run = interaction.described(run, by_cell.get(entry["cell"], {}))
        report = None if entry["role"] == "idle" else _understood(run, adapters, entry)
        wall = run.wall_us
        intervals = whole(wall) if report is None else segment(report.boundaries, wall)
        budget, exact = (None, True) if report is None else workload_of(run)
        metrics = compute(
            run, intervals, report, identity, idle_power=_baseline(run, idle), budget=budget, exact=exact
        )
        metrics += noted(run.meta)
        metrics += interaction.metrics(run, intervals)
        if report is not None:
            clocks.add(run, intervals, entry)
            metrics += offloaded(report.offload, backends[entry["cell"]])
            if cell := trained.get(entry["cell"]):
                metrics.append(answered(report.answer_bytes, cell.get("expected_words", ())))
        rows["phases"] += [_phase_row(run, interval) for interval in intervals]
        metrics += comparable.unmet(run.meta)
        rows["metrics"] += [metric_row(run.name, metric) for metric in metrics]
        samples.append(samples_of(run, intervals, identity))
        if report is not None:
            rows["answers"].append(_answer_row(run, report))
    rows["metrics"] += [
        metric_row(run, Metric("run", "clock_drop", drop.value, "%", "derived", drop.samples, drop.reason))
        for run, drop in clocks.drops().items()
    ]
    folder = Path(destination)
    for name, sort in (
        ("phases", ("run", "start_us", "end_us", "phase", "interval")),
        ("metrics", ("run", "phase", "metric")),
        ("answers", ("run",)),
    ):
        ordered = sorted(rows[name], key=lambda row, keys=sort: tuple(row[k] for k in keys))  # type: ignore[misc]
        records.write(folder / f"{name}.parquet", name, records.table(name, ordered))
    empty = records.SCHEMAS["samples"].empty_table()
    joined = pa.concat_tables([empty, *samples])
    order = [("run", "ascending"), ("sensor", "ascending"), ("t_us", "ascending")]
    records.write(folder / "samples.parquet", "samples", joined.sort_by(order))
    log.info("parsed %d runs into %d metrics", len(entries), len(rows["metrics"]))


def _loaded(value: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else dict(read_json(value))


def understand(run: Run, adapter: str) -> Report:
    """Return what a run's output means, by the grammar of its framework's adapter.

    Raises:
        WorkloadError: the workload crashed or printed nothing that can be used; the message names the run.
        IntegrityError: the run does not say what its token budget was.
    """
    budget, exact = workload_of(run)
    try:
        return grammar(adapter).parse(run.output, max_tokens=budget, exact=exact)
    except WorkloadError as error:
        # The run is in the store for good: what came of it once must not stand in the way for ever.
        again = "if that run alone went wrong, `snakemake --cores 4 remeasure` measures anew"
        raise WorkloadError(error.what, where=f"run {run.name}", do=f"{error.do}; {again}") from error


def workload_of(run: Run) -> tuple[int, bool]:
    """Return the token budget, and whether all of it must be used because end-of-text is ignored."""
    try:
        workload = run.meta["key_inputs"]["workload"]
        budget = workload["max_tokens"]
    except (KeyError, TypeError):
        budget = None
    if type(budget) is not int or budget < 1:
        raise IntegrityError(
            "meta.json names no token budget (key_inputs.workload.max_tokens)",
            where=run.name,
            do=REMEASURE,
        )
    return budget, workload.get("ignore_eos") is True


def _understood(run: Run, adapters: Mapping[str, str], entry: Mapping[str, Any]) -> Report:
    if entry["cell"] not in adapters:
        raise IntegrityError(
            f"the index names the cell {entry['cell']!r}, which is not in the experiment",
            where=str(entry["run"]),
            do=REINDEX,
        )
    return understand(run, adapters[entry["cell"]])


def _idle_power(run: Run, identity: Mapping[str, Any]) -> Value:
    energy = Sensors(run, identity).energy([(0, run.wall_us)])
    if energy.value is None:
        return Value(None, energy.samples, f"no idle baseline: {energy.reason}")
    return Value(energy.value / (run.wall_us * 1e-6), energy.samples)


def _baseline(run: Run, idle: Mapping[str, Value]) -> Value:
    """Return the power of the idle run of the run's own block; that of an idle run is its own."""
    name = run.name if run.meta.get("role") == "idle" else run.meta.get("idle")
    if name is None:
        return Value(None, None, "no idle baseline: the block has no idle run")
    return idle.get(name, Value(None, None, "no idle baseline: the block's idle run is not in the index"))


def _phase_row(run: Run, interval: Interval) -> dict[str, Any]:
    return {"run": run.name, **interval.__dict__}


def metric_row(run: str, metric: Metric) -> dict[str, Any]:
    """Return a metric of the run `<key>/<nn>` as a row of the record `metrics`."""
    return {"run": run, **metric.__dict__, "lower_is_better": metric.lower_is_better}


def _answer_row(run: Run, report: Report) -> dict[str, Any]:
    return {
        "run": run.name,
        "text": report.answer,
        "tokens": report.tokens["decode"],
        "sha256": hashlib.sha256(report.answer_bytes).hexdigest(),
    }


def samples_of(run: Run, intervals: Sequence[Interval], identity: Mapping[str, Any]) -> pa.Table:
    """Return every sample of a run in its sensor's unit, labelled with the phase that it fell into."""
    starts = np.array([i.start_us for i in intervals], dtype=np.int64)
    labels = np.array([i.phase for i in intervals], dtype=object)
    tables = []
    for sensor in identity["sensors"]:
        group = run.groups.get(sensor["group"])
        if sensor["kind"] == "text" or group is None or sensor["name"] not in group.columns:
            continue
        count = group.t_us.size
        # Of intervals that begin together the last is the one that lasts.
        phase = labels[np.clip(np.searchsorted(starts, group.t_us, side="right") - 1, 0, None)]
        values = group.columns[sensor["name"]] * float(sensor["scale"])
        columns = {
            "run": pa.array([run.name] * count, pa.string()),
            "t_us": pa.array(group.t_us),
            "phase": pa.array(phase, pa.string()),
            **{
                name: pa.array([sensor[key]] * count, pa.string())
                for name, key in (("sensor", "name"), ("quantity", "quantity"), ("component", "component"))
            },
            "value": pa.array(values, pa.float64(), from_pandas=True),
            "unit": pa.array([sensor["unit"]] * count, pa.string()),
        }
        tables.append(pa.table(columns))
    empty: pa.Table = records.SCHEMAS["samples"].empty_table()
    return pa.concat_tables([empty, *tables])
