"""A measured run as a trace that Perfetto's UI and chrome://tracing open: phases, counters, output over time.

The format is the JSON of the Trace Event Format (Google, "Trace Event Format", sections "Complete Events",
"Counter Events", "Instant Events", "Metadata Events"): microseconds, one process a run.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketvlm.analyse import records
from pocketvlm.analyse.figures import series
from pocketvlm.analyse.figures.labels import MEANING, tags
from pocketvlm.analyse.numbers import visible
from pocketvlm.analyse.raw import Run, read_run, run_folder
from pocketvlm.analyse.sensors import BUSY
from pocketvlm.frameworks import Stream
from pocketvlm.provenance import atomic_file, read_json

log = logging.getLogger("pocketvlm")

MAX_CHUNKS = 20_000
"""Chunks of an output stream that are shown; what comes after them is one event that says how many."""
MAX_TEXT = 200
"""Characters of a chunk that are shown."""
_COUNTERS = ("cpu_time", "workload_cpu_time", "workload_faults", "energy", "charge")
_PROCESS = 1
_PHASES, _STDOUT, _STDERR, _STATE = 1, 2, 3, 4
_THREADS = {_PHASES: "phases", _STDOUT: "stdout", _STDERR: "stderr", _STATE: "texts of sensors"}

Event = dict[str, Any]


def write_traces(
    index: Path,
    raw_root: Path,
    phases: Path,
    samples: Path,
    cells: Path,
    destination: Path,
    *,
    origin: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `<cell>.<nn>.json.gz` for each measured run of a block; equal input gives equal bytes.

    Args:
        index: `blocks/<device>.json`.
        raw_root: `results/raw`.
        phases, samples: the records of the block.
        cells: `cells.json`.
        destination: the folder to write to.
        origin: `origin.json` of what was received, None for one's own.

    Raises:
        IntegrityError: a run or a record is not what it should be.
    """
    by_cell = {cell["cell"]: cell for cell in read_json(cells)["cells"]}
    spans: dict[str, list[Event]] = defaultdict(list)
    for row in records.read(phases, "phases").to_pylist():
        spans[row["run"]].append(row)
    sensed = records.read(samples, "samples").to_pandas()
    of_run = {str(run): group for run, group in sensed.groupby("run", sort=False)}
    destination.mkdir(parents=True, exist_ok=True)
    written = []
    for entry in read_json(index)["runs"]:
        if entry["role"] != "measured":
            continue
        run = read_run(run_folder(raw_root, entry["run"]), entry["meta_sha256"])
        found = trace(
            run,
            spans[run.name],
            of_run.get(run.name, sensed.iloc[:0]),
            by_cell[entry["cell"]],
            origin=origin,
        )
        path = destination / f"{entry['cell']}.{run.name.split('/')[1]}.json.gz"
        _write(path, found)
        written.append(path)
    log.info("%d traces, %d bytes", len(written), sum(path.stat().st_size for path in written))
    return written


def trace(
    run: Run,
    phases: Sequence[Mapping[str, Any]],
    samples: pd.DataFrame,
    cell: Mapping[str, Any],
    *,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a run as the object of a JSON trace.

    Args:
        run: the recorded run.
        phases: its rows of the record `phases`.
        samples: its rows of the record `samples`.
        cell: its cell, of `cells.json`.
        origin: who measured it, None for oneself.
    """
    tracks = {name: track for name, track in _tracks(run, samples) if track.size}
    events = [
        *_phases(phases),
        *_chunks(run.output.stdout, _STDOUT),
        *_chunks(run.output.stderr, _STDERR),
        *_texts(run),
        *(event for name, track in tracks.items() for event in _counter(name, track)),
    ]
    # Counters are read once before the run begins; a trace begins at 0.
    shift = max(0, -min((event["ts"] for event in events), default=0))
    for event in events:
        event["ts"] += shift
    events.sort(key=lambda event: (event["ts"], event["ph"], event["tid"], event["name"]))
    labels = tags([cell])
    about = {
        "run": run.name,
        **{name: cell[name] for name in ("cell", *records.CELL_COLUMNS)},
        "started": str(run.meta.get("started", ""))[:40],
        "run_begins_at_us": shift,
        "notice": " ".join(MEANING[label] for label in labels),
        "origin": f"received, sent from commit {origin['commit']}" if origin else "measured here",
    }
    shown = f"{cell['cell']} run {run.name.split('/')[1]}"
    process = f"[{', '.join(labels)}] {shown}" if labels else shown
    return {
        "displayTimeUnit": "ms",
        "otherData": {name: visible(str(value), 1000)[0] for name, value in about.items()},
        "traceEvents": [*_names(process), *events],
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    data = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    with (
        atomic_file(path, "wb") as stream,
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        packed.write(data)


def _names(process: str) -> Iterator[Event]:
    yield _named("process_name", 0, process)
    for thread, name in _THREADS.items():
        yield _named("thread_name", thread, name)
        yield {**_named("thread_sort_index", thread, ""), "args": {"sort_index": thread}}


def _named(what: str, thread: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": thread, "ts": 0, "args": {"name": name}}


def _phases(phases: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    for row in sorted(phases, key=lambda row: (row["start_us"], row["end_us"])):
        yield {
            "ph": "X",
            "name": row["phase"],
            "cat": "phase",
            "pid": _PROCESS,
            "tid": _PHASES,
            "ts": row["start_us"],
            "dur": row["end_us"] - row["start_us"],
            "args": {
                "begins with": row["start_boundary"],
                "ends with": row["end_boundary"],
                "both ends observed": row["start_observed"] and row["end_observed"],
            },
        }


def _instant(name: str, t_us: int, thread: int, args: Mapping[str, Any]) -> Event:
    return {
        "ph": "i",
        "name": name,
        "cat": _THREADS[thread],
        "s": "t",
        "pid": _PROCESS,
        "tid": thread,
        "ts": int(t_us),
        "args": dict(args),
    }


def _chunks(stream: Stream, thread: int) -> Iterator[Event]:
    """Yield an output stream's chunks; a character that two chunks share is shown as a replacement."""
    begin = 0
    for number, (end, t_us) in enumerate(zip(stream.ends.tolist(), stream.times.tolist(), strict=True)):
        if number == MAX_CHUNKS:
            left = len(stream.ends) - MAX_CHUNKS
            yield _instant(f"{left} more chunks", t_us, thread, {"left out": left})
            return
        text, cut = visible(stream.data[begin:end].decode(errors="replace"), MAX_TEXT)
        yield _instant(text.strip() or "(blank)", t_us, thread, {"bytes": end - begin, "cut": cut})
        begin = end


def _texts(run: Run) -> Iterator[Event]:
    for t_us, sensor, value in run.texts:
        yield _instant(visible(f"{sensor}: {value}", MAX_TEXT)[0], t_us, _STATE, {})


def _tracks(run: Run, samples: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Yield each counter track's name and values over microseconds: rates of counters, gauges as they are."""
    yield "CPU of the system (% of one core)", series.system_cpu(samples)
    yield "CPU of the workload (% of one core)", series.workload_cpu(samples)
    times = samples[samples["quantity"] == "cpu_time"]
    cores = times["component"].astype(str).str.extract(r"^(cpu\d+)\.(\w+)$")
    for core in sorted(cores[0].dropna().unique(), key=lambda name: int(str(name)[3:])):
        mine = times[(cores[0] == core) & cores[1].isin(BUSY)]
        yield f"CPU {str(core)[3:]} (%)", series.rate_percent(series.summed(mine))
    yield "power (W)", series.power(samples)
    gauges = samples[~samples["quantity"].isin(_COUNTERS)].dropna(subset="value")
    for (quantity, component, unit), group in gauges.groupby(["quantity", "component", "unit"], sort=True):
        told = "" if unit == "1" else f" ({unit})"
        yield f"{quantity} {component}{told}", group.set_index("t_us")["value"].sort_index()
    yield "wake-up late (ms)", pd.Series(run.wake_late_us / 1000, index=run.wake_t_us)


def _counter(name: str, track: pd.Series) -> Iterator[Event]:
    """Yield a track's changes, and its last value: between two events a counter holds its value."""
    values = track.to_numpy(dtype=np.float64)
    keep = np.isfinite(values)
    times, values = track.index.to_numpy(dtype=np.int64)[keep], values[keep]
    changed = np.ones(values.size, dtype=bool)
    changed[1:-1] = values[1:-1] != values[:-2]
    for t_us, value in zip(times[changed].tolist(), values[changed].tolist(), strict=True):
        yield {
            "ph": "C",
            "name": name,
            "pid": _PROCESS,
            "tid": 0,
            "ts": t_us,
            "args": {"value": float(f"{value:.6g}")},
        }
