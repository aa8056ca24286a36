"""Traces: what Perfetto's UI is given is of the Trace Event Format, and is the run."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from handmade import IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run

from pocketvlm.analyse import trace as traces
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.records import CELL_COLUMNS
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import write_json

KEY = "0123456789abcdef"
CELL = {
    "cell": "bench.x",
    "adapter": "llamacpp",
    **dict.fromkeys(CELL_COLUMNS, "x"),
    "device_kind": "emulated",
    "weights_kind": "synthetic",
}
FIELDS = {
    "M": {"ph", "name", "pid", "tid", "ts", "args"},
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "i": {"ph", "name", "cat", "s", "pid", "tid", "ts", "args"},
}


def check_trace(value: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Check the structure that the format asks for, strictly; return the events by kind."""
    assert set(value) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert value["displayTimeUnit"] in ("ms", "ns")
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in value["otherData"].items())
    events: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FIELDS}
    named = set()
    for event in value["traceEvents"]:
        assert set(event) == FIELDS[event["ph"]], event
        assert type(event["ts"]) is int and event["ts"] >= 0
        assert type(event["pid"]) is int and type(event["tid"]) is int
        assert isinstance(event["name"], str) and event["name"]
        assert isinstance(event["args"], dict)
        if event["ph"] == "X":
            assert type(event["dur"]) is int and event["dur"] >= 0
        if event["ph"] == "C":
            (number,) = event["args"].values()
            assert isinstance(number, float) and math.isfinite(number)
        if event["ph"] == "i":
            assert event["s"] == "t"
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            named.add((event["name"], event["tid"]))
        events[event["ph"]].append(event)
    assert ("process_name", 0) in named
    for kind in ("X", "i"):
        assert {("thread_name", event["tid"]) for event in events[kind]} <= named
    stamps = [event["ts"] for event in value["traceEvents"] if event["ph"] != "M"]
    assert stamps == sorted(stamps)
    return events


def block(tmp_path: Path, **run: Any) -> dict[str, Path]:
    """Write a block with one measured run and its records, and return where they are."""
    raw = tmp_path / "raw"
    seen = run.pop("seen", None) or output(stdout_0_3_16(), stderr_0_3_16())
    meta = write_run(raw / KEY / "00", seen, **run)
    entry = {"run": f"{KEY}/00", "cell": CELL["cell"], "role": "measured", "position": 1, "meta_sha256": meta}
    write_json(tmp_path / "index.json", {"device": "bench", "runs": [entry]})
    write_json(tmp_path / "cells.json", {"cells": [CELL]})
    parse_block(tmp_path / "index.json", raw, IDENTITY, tmp_path / "cells.json", tmp_path / "records")
    return {
        "index": tmp_path / "index.json",
        "raw_root": raw,
        "phases": tmp_path / "records/phases.parquet",
        "samples": tmp_path / "records/samples.parquet",
        "cells": tmp_path / "cells.json",
        "destination": tmp_path / "traces",
    }


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path) as stream:
        value: dict[str, Any] = json.load(stream, parse_constant=lambda name: pytest.fail(name))
    return value


def test_a_run_becomes_a_trace(tmp_path: Path) -> None:
    (path,) = traces.write_traces(**block(tmp_path))
    assert path.name == "bench.x.00.json.gz"
    value = read(path)
    events = check_trace(value)
    phases = [(event["name"], event["ts"], event["dur"]) for event in events["X"]]
    shift = int(value["otherData"]["run_begins_at_us"])
    assert shift == 500, "a text of a sensor was read 500 µs before the run began"
    assert phases[0][:2] == ("load", shift)
    assert sum(length for _, _, length in phases) == 5_000_000
    for (_, begin, length), (_, after, _) in itertools.pairwise(phases):
        assert begin + length == after, "phases exclude each other and leave nothing out"
    assert {name for name, _, _ in phases} >= {
        "load",
        "text_prefill",
        "image_encode",
        "image_prefill",
        "decode",
    }


def test_counters_are_in_their_units(tmp_path: Path) -> None:
    (path,) = traces.write_traces(**block(tmp_path))
    tracks: dict[str, list[float]] = {}
    for event in check_trace(read(path))["C"]:
        tracks.setdefault(event["name"], []).append(event["args"]["value"])
    assert set(tracks["CPU of the workload (% of one core)"]) == {150.0}
    assert tracks["power (W)"] == [2.0, 2.0], "a value that does not change is told at its begin and end"
    heat = tracks["temperature cpu.zone0 (degC)"]
    assert heat[0] == 40.0 and heat == sorted(heat) and 44 < heat[-1] <= 45
    assert tracks["voltage battery (V)"] == [4.0, 4.0]
    assert max(tracks["wake-up late (ms)"]) == 0.106
    assert not any(name.startswith(("cpu_time", "workload_cpu_time")) for name in tracks)


def test_output_and_texts_are_instants(tmp_path: Path) -> None:
    (path,) = traces.write_traces(**block(tmp_path))
    instants = check_trace(read(path))["i"]
    by_thread: dict[int, list[str]] = {}
    for event in instants:
        by_thread.setdefault(event["tid"], []).append(event["name"])
    assert by_thread[2][1] == "encoding image slice..."
    assert len(by_thread[2]) == len(stdout_0_3_16())
    assert by_thread[4] == ["battery.status: Discharging"]


def test_what_is_no_phones_says_so(tmp_path: Path) -> None:
    given = block(tmp_path)
    (path,) = traces.write_traces(**given, origin={"commit": "c" * 40})
    value = read(path)
    process = next(event for event in value["traceEvents"] if event["name"] == "process_name")
    assert process["args"]["name"].startswith("[emulated phone, synthetic weights] bench.x")
    assert "no phone's" in value["otherData"]["notice"]
    assert value["otherData"]["origin"] == f"received, sent from commit {'c' * 40}"


def test_a_models_text_stays_text(tmp_path: Path) -> None:
    stdout = [*stdout_0_3_16()[:6], (3_600_000, b'<script>"\\\x1b]0;x\x07\xff'), *stdout_0_3_16()[7:]]
    seen = output(stdout, stderr_0_3_16())
    (path,) = traces.write_traces(**block(tmp_path, seen=seen, budget=4))
    data = gzip.decompress(path.read_bytes())
    assert b"\x1b" not in data and data.isascii()
    names = [event["name"] for event in check_trace(json.loads(data))["i"]]
    assert '<script>"\\⟨U+001B⟩]0;x⟨U+0007⟩\ufffd' in names


def test_long_output_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_CHUNKS", 5)
    monkeypatch.setattr(traces, "MAX_TEXT", 8)
    (path,) = traces.write_traces(**block(tmp_path))
    mine = [event for event in check_trace(read(path))["i"] if event["tid"] == 2]
    assert len(mine) == 6
    assert mine[-1]["name"] == f"{len(stdout_0_3_16()) - 5} more chunks"
    assert mine[0]["name"] == "main: lo" and mine[0]["args"]["cut"] == 24


def test_unreadable_values_are_gaps(tmp_path: Path) -> None:
    files = {
        "cpu.csv": b"t_us,cpu.total.user,thermal.cpu\n7000000000,1,\n7000100000,2,41000\n7000200000,,42000\n",
        "battery.csv": b"t_us,battery.current,battery.voltage\n",
    }
    (path,) = traces.write_traces(**block(tmp_path, files=files))
    events = check_trace(read(path))["C"]
    assert [event["args"]["value"] for event in events if event["name"].startswith("temperature")] == [
        41.0,
        42.0,
    ]


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    given = block(tmp_path)
    (path,) = traces.write_traces(**given)
    first = path.read_bytes()
    path.unlink()
    traces.write_traces(**given)
    assert path.read_bytes() == first


def test_a_changed_run_gives_no_trace(tmp_path: Path) -> None:
    given = block(tmp_path)
    (given["raw_root"] / KEY / "00" / "stdout").write_text("other")
    with pytest.raises(IntegrityError, match="stdout has sha256"):
        traces.write_traces(**given)
    assert list(given["destination"].glob("*.gz")) == []
