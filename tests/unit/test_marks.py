"""What was noted of a run, how much the runs of a cell differ, and what of it reaches the tables."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.analyse import records
from pocketvlm.analyse.gates import judge, judge_file
from pocketvlm.analyse.marks import answered, noted
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.tables import aggregate
from pocketvlm.analyse.variation import coefficient, unsteady
from tests.unit.handmade import CELL, output, stderr_0_3_16, stdout_0_3_16, write_block, write_run

HOT = "it began hot: cpu 51.2 degC, at most 45.0 degC, after a wait of 600 s"
HEAT = {"temperatures": {"cpu": 51.2}, "first": {"cpu": 30.0}, "waited_s": 600.0, "hot": None}


def told(meta: dict[str, Any]) -> dict[str, tuple[float | None, str]]:
    return {metric.metric: (metric.value, metric.reason) for metric in noted(meta)}


def test_nothing_noted_nothing_told():
    assert told({}) == {}
    assert told({"heat": "hot", "warmups": 3, "low_memory_kills": "a"}) == {}, "of another form"


def test_what_was_noted():
    assert told({"heat": HEAT}) == {"start_hot": (0.0, ""), "start_wait": (600.0, "")}
    assert told({"heat": {**HEAT, "hot": HOT}})["start_hot"] == (1.0, HOT)
    assert told({"warmups": {"made": 4, "cv_percent": 1.25, "steady": True}}) == {
        "warmups_made": (4.0, ""),
        "warmups_cv": (1.25, ""),
    }
    assert told({"warmups": {"made": 1, "cv_percent": None}})["warmups_cv"][0] is None
    assert told({"low_memory_kills": []}) == {"low_memory_kills": (0.0, "")}
    assert told({"low_memory_kills": ["[ 1.0] x;\x1b[31m y", "b"]})["low_memory_kills"] == (
        2.0,
        "[ 1.0] x, [31m y",
    )


def test_a_reason_is_one_clause_and_short():
    value, why = told({"heat": {"hot": "a; b\n" * 500}})["start_hot"]
    assert value == 1.0
    assert ";" not in why and "\n" not in why and len(why) == 300


ROWS = {
    ("run", "duration"): 5000.0,
    ("decode", "tokens_per_second"): 15.0,
    ("run", "power"): 2.0,
    ("run", "clock_drop"): 3.0,
    ("run", "clock_mean.policy4"): 2500.0,
    ("run", "low_memory_kills"): 0.0,
    ("run", "start_hot"): 0.0,
    ("run", "start_wait"): 12.0,
    ("run", "warmups_made"): 3.0,
}
NUMBERS = {("run", "duration"), ("decode", "tokens_per_second"), ("run", "power")}
THRESHOLDS = {"max_clock_drop_percent": 10, "max_low_memory_kills": 0, "max_cv_percent": 5}


def gates(
    *runs: dict[tuple[str, str], float | None],
    thresholds: dict[str, float] = THRESHOLDS,
    measured: set[str] | None = None,
    reason: str = "",
) -> dict[tuple[str, str, str], str]:
    rows = [
        {"run": f"r{number}", "phase": phase, "metric": metric, "value": value, "unit": "", "source": "",
         "samples": 10, "lower_is_better": None, "reason": reason if metric == "start_hot" and value else ""}
        for number, changes in enumerate(runs)
        for (phase, metric), value in {**ROWS, **changes}.items()
    ]  # fmt: skip
    cells = {f"r{number}": "c" for number in range(len(runs))}
    judged = judge(records.table("metrics", rows), thresholds, cells=cells, measured=measured)
    return {(r["run"], r["phase"], r["metric"]): r["gate"] for r in judged.to_pylist() if r["gate"]}


def test_a_good_run_passes():
    assert gates({}) == {}


def test_a_run_that_began_hot_is_withheld_and_the_evidence_stays():
    closed = gates({("run", "start_hot"): 1.0}, {}, reason=HOT)
    assert {key[1:] for key in closed} == NUMBERS
    assert {key[0] for key in closed} == {"r0"}
    assert set(closed.values()) == {HOT}


def test_a_throttled_run_is_withheld():
    closed = gates({("run", "clock_drop"): 31.25})
    assert {key[1:] for key in closed} == NUMBERS
    assert closed["r0", "run", "duration"] == (
        "the clock was 31.25 % below the cell's first seconds, 10 % is allowed"
    )
    assert gates({("run", "clock_drop"): 10.0}) == {}
    assert gates({("run", "clock_drop"): -20.0}) == {}
    assert gates({("run", "clock_drop"): None}) == {}
    assert gates({("run", "clock_drop"): 31.0}, thresholds={}) == {}


def test_a_run_during_which_memory_ran_short_is_withheld():
    closed = gates({("run", "low_memory_kills"): 2.0})
    assert {key[1:] for key in closed} == NUMBERS
    assert "2 lines of the log tell of a killed process" in closed["r0", "run", "power"]
    assert gates({("run", "low_memory_kills"): 2.0}, thresholds={"max_low_memory_kills": 2}) == {}


def test_nothing_is_net_of_a_baseline_that_took_more_than_the_run():
    limit = {"max_rest_above_run_percent": 5}
    net = {("run", "power"): 1.0, ("run", "power_net"): -0.06, ("decode", "energy_net"): -0.3}
    closed = gates(net, thresholds=limit)
    assert {key[1:] for key in closed} == {("run", "power_net"), ("decode", "energy_net")}
    assert closed["r0", "decode", "energy_net"] == (
        "the device took 1.06 W at rest and 1 W in the run, 5 % more is allowed: "
        "the baseline is not of a device at rest"
    )
    assert gates({**net, ("run", "power_net"): -0.04}, thresholds=limit) == {}
    assert gates({**net, ("run", "power_net"): None}, thresholds=limit) == {}
    assert gates(net, thresholds={}) == {}


def test_a_cell_whose_runs_differ_is_withheld():
    def runs(*lengths: float) -> list[dict[tuple[str, str], float | None]]:
        return [{("run", "duration"): length} for length in lengths]

    closed = gates(*runs(5000, 5000, 6000))
    assert len(closed) == 9, "every number of every run"
    assert closed["r0", "decode", "tokens_per_second"] == (
        "the runs differ by 10.83 % (duration of run, coefficient of variation over 3 runs), 5 % is allowed"
    )
    assert gates(*runs(5000, 5000, 5100)) == {}
    assert gates(*runs(5000, 9000)) == {}, "two runs say nothing"
    assert gates(*runs(5000, 5000, 6000), thresholds={}) == {}
    assert gates(*runs(5000, 5000, 6000), measured={"r0", "r1"}) == {}, "a warm-up is no run of it"
    rates: list[dict[tuple[str, str], float | None]] = [
        {("decode", "tokens_per_second"): rate} for rate in (10.0, 15.0, 20.0)
    ]
    assert "33.33 % (tokens_per_second of decode" in gates(*rates)["r2", "run", "power"]


def test_runs_that_are_withheld_already_do_not_count():
    runs: list[dict[tuple[str, str], float | None]] = [{}, {}, {}, {("run", "duration"): 9000.0}]
    assert len(gates(*runs)) == 12
    runs[3] = {**runs[3], ("run", "clock_drop"): 50.0}
    assert {key[0] for key in gates(*runs)} == {"r3"}


def test_the_coefficient_of_variation():
    assert coefficient([9.0, 10.0, 11.0]) == pytest.approx(10.0)
    assert coefficient([9.0, 11.0]) is None
    assert coefficient([0.0, 0.0, 0.0]) is None
    assert unsteady({}, {"r": "c"}, 1.0) == {}


def tables(folder: Path, **cell: Any) -> list[dict[str, str]]:
    """Parse, judge and aggregate what `write_block` wrote; the rows of cells.csv."""
    own, raw = folder / "x", folder / "raw"
    cells = json.loads((own / "cells.json").read_text())
    cells["cells"][0] |= cell
    (own / "cells.json").write_text(json.dumps(cells))
    block = own / "blocks/bench.json"
    parse_block(block, raw, folder / "devices/bench/identity.json", own / "cells.json", own / "records/bench")
    (own / "bounds.csv").write_text("cell,phase,metric,unit,bound,margin_percent,kind,inputs,source,reason\n")
    judged = own / "judged/bench.parquet"
    judge_file(
        own / "records/bench/metrics.parquet", THRESHOLDS, judged, bounds=own / "bounds.csv", block=block
    )
    aggregate([judged], [block], own / "cells.json", own / "tables", resamples=100, confidence=0.95, seed=1)
    with (own / "tables/cells.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def row(rows: list[dict[str, str]], phase: str, metric: str) -> dict[str, str]:
    (found,) = [each for each in rows if (each["phase"], each["metric"]) == (phase, metric)]
    return found


def test_what_was_noted_reaches_the_tables_with_its_reason(tmp_path):
    write_block(tmp_path, noted={"heat": {**HEAT, "hot": HOT}, "low_memory_kills": []})
    rows = tables(tmp_path)
    duration = row(rows, "run", "duration")
    assert (duration["n"], duration["gate"]) == ("0", HOT)
    assert row(rows, "run", "start_hot")["median"] == "1"
    assert row(rows, "run", "low_memory_kills")["median"] == "0"
    drop = row(rows, "run", "clock_drop")
    assert drop["n"] == "0" and "time_in_state" in drop["gate"]


def test_a_slow_warm_up_does_not_make_the_runs_differ(tmp_path):
    write_block(tmp_path)
    warmup, index = tmp_path / "raw" / ("2" * 64) / "00", tmp_path / "x/blocks/bench.json"
    shutil.rmtree(warmup)
    sha = write_run(
        warmup, output(stdout_0_3_16(), stderr_0_3_16(), 9_000_000), role="warmup", idle="1" * 64 + "/00"
    )
    block = json.loads(index.read_text())
    (entry,) = [entry for entry in block["runs"] if entry["role"] == "warmup"]
    entry["meta_sha256"] = sha
    index.write_text(json.dumps(block))
    assert row(tables(tmp_path), "run", "duration")["n"] == "3"
    judged = records.read(tmp_path / "x/judged/bench.parquet", "judged").to_pylist()
    assert not [each for each in judged if "the runs differ" in each["gate"]]


def test_an_answer_of_trained_weights_is_looked_at_and_one_of_random_weights_is_not(tmp_path):
    write_block(tmp_path / "a")
    rows = tables(tmp_path / "a")
    assert row(rows, "run", "duration")["n"] == "3"
    assert not [each for each in rows if each["metric"] == "answer_wrong"]
    write_block(tmp_path / "b")
    rows = tables(tmp_path / "b", weights_kind="hub")
    assert row(rows, "run", "answer_wrong")["median"] == "0"
    assert row(rows, "run", "duration")["n"] == "3"
    write_block(tmp_path / "c")
    rows = tables(tmp_path / "c", weights_kind="hub", expected_words=["cup"])
    assert row(rows, "run", "duration")["gate"] == "the answer lacks 'cup'"
    assert row(rows, "run", "answer_wrong")["median"] == "1"
    # The reason names the answer as it was, bytes and all.
    broken = [(t, data.replace(b" b", b" \xff")) for t, data in stdout_0_3_16()]
    write_block(tmp_path / "d", seen=output(broken, stderr_0_3_16()))
    rows = tables(tmp_path / "d", weights_kind="file")
    assert row(rows, "run", "duration")["gate"] == "the answer is no UTF-8 from byte 3 on"
    assert answered(b"", ()).value == 1.0
    assert CELL["weights_kind"] == "synthetic"
