"""From raw runs to the tables, the same bytes each time; and verify finds what was changed."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from handmade import CELL, TIMING, idle_output, output, stdout_0_3_16, write_block, write_run
from tiny_weights import PEAKS, language, vision

from pocketvlm.analyse import records
from pocketvlm.analyse.bounds import compute_bounds
from pocketvlm.analyse.gates import judge_file
from pocketvlm.analyse.ledger import write_ledger
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.tables import _why as why
from pocketvlm.analyse.tables import aggregate
from pocketvlm.analyse.verify import verify
from pocketvlm.errors import IntegrityError, WorkloadError

GATES = {"agreement_percent": 2, "agreement_ms": 5, "min_sensor_coverage_percent": 90}
BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 1}
LEDGER: dict[str, Any] = {"paper": None, "shapes": {}, "bootstrap": BOOTSTRAP, "tolerance_percent": 10}


def make(results: Path, gates: dict[str, float] = GATES) -> Path:
    """Run the stages from parse to aggregate on the block of experiment x."""
    own = results / "x"
    parse_block(
        own / "blocks/bench.json",
        results / "raw",
        results / "devices/bench/identity.json",
        own / "cells.json",
        own / "records/bench",
    )
    metrics, block = own / "records/bench/metrics.parquet", own / "blocks/bench.json"
    compute_bounds(
        cells=own / "cells.json",
        device="bench",
        metrics=metrics,
        block=block,
        peaks=results / "devices/bench/peaks.json",
        made_of=made_of(results),
        margin_percent=5,
        destination=own / "bounds/bench.csv",
    )
    judge_file(metrics, gates, own / "judged/bench.parquet", bounds=own / "bounds/bench.csv", block=block)
    aggregate(
        [own / "judged/bench.parquet"],
        [own / "blocks/bench.json"],
        own / "cells.json",
        own / "tables",
        **BOOTSTRAP,
    )
    write_ledger(
        cells=own / "cells.json",
        summary=own / "tables/cells.csv",
        runs=own / "tables/runs.parquet",
        bounds=[own / "bounds/bench.csv"],
        peaks=[results / "devices/bench/peaks.json"],
        destination=own / "tables/ledger.csv",
        **LEDGER,
    )
    return own


def made_of(results: Path) -> dict[str, Any]:
    weights = {role: results / f"weights/nano/{role}.json" for role in ("model", "mmproj")}
    return {CELL["cell"]: {"weights": weights, "settings": {"threads": 2}}}


def cells(own: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (own / "tables/cells.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        assert tuple(reader.fieldnames or ()) == records.CELLS_CSV
    return {(row["phase"], row["metric"]): row for row in rows}


def check(results: Path, gates: dict[str, float] = GATES) -> list[Any]:
    return verify(
        "x",
        results,
        results / "x/cells.json",
        thresholds=gates,
        bootstrap=BOOTSTRAP,
        bounds={"made_of": {"bench": made_of(results)}, "margin_percent": 5},
        ledger=LEDGER,
    )


@pytest.fixture(autouse=True)
def limited(tmp_path: Path) -> None:
    """Peaks of the device and records of the weights."""
    for path, value in (
        ("devices/bench/peaks.json", PEAKS),
        ("weights/nano/model.json", language()),
        ("weights/nano/mmproj.json", vision()),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(value))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_block(tmp_path)
    return tmp_path


def test_records_have_the_columns_of_their_schema(results: Path) -> None:
    own = make(results)
    for name in records.RECORDS:
        table = pq.read_table(own / f"records/bench/{name}.parquet")
        assert table.schema.names == records.SCHEMAS[name].names
        assert table.num_rows > 0
    phases = pq.read_table(own / "records/bench/phases.parquet").to_pandas()
    lengths = (phases.end_us - phases.start_us).groupby(phases.run).sum()
    assert sorted(lengths) == [3_000_000, *[5_000_000] * 4]
    samples = pq.read_table(own / "records/bench/samples.parquet").to_pandas()
    warm = samples[(samples.sensor == "thermal.cpu") & (samples.run == "2" * 64 + "/00")]
    assert warm.value.iloc[0] == pytest.approx(40.0)
    assert warm[warm.t_us == 1_100_000].phase.item() == "image_encode"
    assert warm[warm.t_us == 1_000_000].phase.item() == "text_prefill"
    assert set(samples[samples.run == "1" * 64 + "/00"].phase) == {"other"}
    answers = pq.read_table(own / "records/bench/answers.parquet").to_pandas()
    assert set(answers.text) == {" a b c d"}
    assert len(answers) == 4


def test_tables_hold_the_measured_runs_only(results: Path) -> None:
    own = make(results)
    runs = pq.read_table(own / "tables/runs.parquet").to_pandas()
    assert set(runs["round"]) == {1, 2, 3}
    assert set(runs.cell) == {CELL["cell"]}
    assert set(runs.key) == {"2" * 64}
    rows = cells(own)
    decode = rows["decode", "duration"]
    assert (decode["n"], decode["median"], decode["ci_low"], decode["gate"]) == ("3", "300", "300", "")
    assert decode["settings"] == "threads=2"
    # Idle 4 V x 0.1 A, the run 4 V x 0.5 A.
    assert float(rows["run", "power_net"]["median"]) == pytest.approx(1.6)


def test_what_is_missing_is_a_row_with_its_reason(results: Path) -> None:
    rows = cells(make(results))
    gpu = rows["run", "gpu_busy"]
    assert (gpu["n"], gpu["median"], gpu["gate"]) == ("0", "", "no GPU node can be read")
    assert rows["decode", "system_cpu"]["gate"] == "3 samples in the phase, 5 are needed"
    for row in rows.values():
        assert (row["n"] == "0") <= bool(row["gate"])


def test_reasons_that_differ_in_their_numbers_are_one() -> None:
    def row(value: float | None, gate: str = "", reason: str = "") -> dict[str, Any]:
        return {"value": value, "gate": gate, "reason": reason}

    short = "the phase lasted {} ms, 100 ms are needed"
    five = [row(1.0, short.format(ms)) for ms in ("60", "50.9", "9.5", "55.5", "60")]
    assert why(five) == "5 of 5 runs: the phase lasted 9.5 to 60 ms, 100 ms are needed"
    assert why(five[:1] * 5) == "the phase lasted 60 ms, 100 ms are needed"
    assert why([*five[:2], row(1.0)]) == "2 of 3 runs: the phase lasted 50.9 to 60 ms, 100 ms are needed"
    few = [row(None, reason=f"{n} samples in the phase, 5 are needed") for n in (3, 4)]
    assert why(few) == "2 of 2 runs: 3 to 4 samples in the phase, 5 are needed"
    # Several gates of a run are counted each, and numbers within names are not merged.
    late = "wake-ups were {} ms late (p99), more than 50 ms"
    both = [row(1.0, f"{short.format(50)}; {late.format(80)}"), row(1.0, late.format(90)), row(1.0)]
    assert why(both) == (
        "1 of 3 runs: the phase lasted 50 ms, 100 ms are needed; "
        "2 of 3 runs: wake-ups were 80 to 90 ms late (p99), more than 50 ms"
    )
    names = [row(None, reason=f"the counter rapl.package-{n} went back") for n in (0, 1)]
    assert why(names) == "; ".join(f"1 of 2 runs: the counter rapl.package-{n} went back" for n in (0, 1))
    # A device's own words may hold anything.
    assert why([row(None, reason="a # 5"), row(None, reason="a 3 #")]).count("1 of 2 runs") == 2
    assert why([row(1.0)]) == ""


def test_the_baseline_is_the_idle_run_of_the_same_block(results: Path) -> None:
    # A second block, whose idle run took 4 V x 0.2 A instead of 0.1 A, gave the third measured run.
    path = results / "x/blocks/bench.json"
    block = json.loads(path.read_text())
    sha = write_run(results / "raw" / ("1" * 64) / "01", idle_output(), role="idle", current_ua=200_000)
    idle = {
        "run": "1" * 64 + "/01",
        "cell": None,
        "role": "idle",
        "round": 0,
        "position": 0,
        "meta_sha256": sha,
    }
    folder = results / "raw" / ("2" * 64) / "03"
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "idle": idle["run"]}))
    last = block["runs"][-1]
    assert last["run"] == "2" * 64 + "/03"
    last["meta_sha256"] = hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()

    def net() -> dict[str, Any]:
        runs = pq.read_table(make(results) / "tables/runs.parquet").to_pylist()
        return {r["run"][-2:]: r for r in runs if (r["phase"], r["metric"]) == ("run", "power_net")}

    path.write_text(json.dumps({**block, "runs": [idle, *block["runs"]]}))
    assert {run: row["value"] for run, row in net().items()} == pytest.approx(
        {"01": 1.6, "02": 1.6, "03": 1.2}
    )
    path.write_text(json.dumps(block))
    rows = net()
    assert (rows["01"]["value"], rows["03"]["value"]) == (pytest.approx(1.6), None)
    assert rows["03"]["reason"] == "no idle baseline: the block's idle run is not in the index"
    # An idle run is its own baseline.
    metrics = records.read(results / "x/records/bench/metrics.parquet", "metrics").to_pylist()
    own = [r for r in metrics if r["run"].startswith("1" * 64) and r["metric"] == "power_net"]
    assert [r["value"] for r in own] == [pytest.approx(0.0)]


def test_a_disagreement_reaches_the_table(tmp_path: Path) -> None:
    wrong = [(4_000_100, TIMING.replace(b"300.00 ms", b"250.00 ms"))]
    write_block(tmp_path, seen=output(stdout_0_3_16(), wrong))
    rows = cells(make(tmp_path))
    assert rows["decode", "duration"]["n"] == "0"
    assert "observed and reported decode differ by 18.8 % and 47 ms" in rows["decode", "duration"]["gate"]
    assert rows["image_encode", "duration"]["n"] == "3"
    # A new threshold judges anew without parsing anything.
    before = (tmp_path / "x/records/bench/metrics.parquet").stat().st_mtime_ns
    judge_file(
        tmp_path / "x/records/bench/metrics.parquet",
        {},
        tmp_path / "j.parquet",
        bounds=tmp_path / "x/bounds/bench.csv",
        block=tmp_path / "x/blocks/bench.json",
    )
    assert set(pq.read_table(tmp_path / "j.parquet").column("gate").to_pylist()) == {""}
    assert (tmp_path / "x/records/bench/metrics.parquet").stat().st_mtime_ns == before


def test_equal_input_gives_equal_bytes(results: Path, tmp_path: Path) -> None:
    own = make(results)
    files = sorted(path for path in own.rglob("*") if path.suffix in (".parquet", ".csv"))
    assert len(files) == 9
    first = [path.read_bytes() for path in files]
    make(results)
    assert [path.read_bytes() for path in files] == first


def test_a_run_that_cannot_be_understood_names_itself(tmp_path: Path) -> None:
    write_block(tmp_path, seen=output([], [(1, b"boom\n")], exited=True, status=3))
    with pytest.raises(WorkloadError, match=r"status 3.*boom.*run 2{64}/00"):
        make(tmp_path)


def test_without_a_budget_in_the_record(tmp_path: Path) -> None:
    write_block(tmp_path, budget=0)
    with pytest.raises(IntegrityError, match="token budget"):
        make(tmp_path)


def test_a_block_and_its_records_must_fit(results: Path) -> None:
    own = make(results)
    block = json.loads((own / "blocks/bench.json").read_text())
    block["runs"].append({**block["runs"][-1], "run": "3" * 64 + "/00"})
    (own / "blocks/bench.json").write_text(json.dumps(block))
    judged, index = [own / "judged/bench.parquet"], [own / "blocks/bench.json"]
    with pytest.raises(IntegrityError, match="1 runs of the block have no metrics"):
        aggregate(judged, index, own / "cells.json", own / "tables", **BOOTSTRAP)
    block["runs"] = block["runs"][:2]
    (own / "blocks/bench.json").write_text(json.dumps(block))
    with pytest.raises(IntegrityError, match="is in no block"):
        aggregate(judged, index, own / "cells.json", own / "tables", **BOOTSTRAP)
    (own / "judged/bench.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(IntegrityError, match="no Parquet record"):
        aggregate(judged, index, own / "cells.json", own / "tables", **BOOTSTRAP)


def test_verify_finds_nothing_where_nothing_was_changed(results: Path) -> None:
    make(results)
    assert check(results) == []


def test_verify_names_a_changed_raw_file(results: Path) -> None:
    make(results)
    path = results / "raw" / ("2" * 64) / "01" / "cpu.csv"
    path.write_bytes(path.read_bytes().replace(b"41000", b"41001", 1))
    (found,) = check(results)
    assert found.path == str(path)
    assert "has sha256" in found.what
    path.unlink()
    assert "missing" in check(results)[0].what


def test_verify_names_an_added_raw_file(results: Path) -> None:
    make(results)
    (results / "raw" / ("2" * 64) / "01" / "extra.csv").write_text("")
    assert "extra.csv" in check(results)[0].what


def test_verify_names_changed_tables(results: Path) -> None:
    own = make(results)
    table = own / "tables/cells.csv"
    table.write_text(table.read_text().replace(",300,", ",299,", 1))
    (found,) = check(results)
    assert found.path == str(table)
    assert "1 lines differ" in found.what
    make(results)
    judged = records.read(own / "judged/bench.parquet", "judged").to_pylist()
    next(row for row in judged if row["metric"] == "duration")["value"] = 1.0
    records.write(own / "judged/bench.parquet", "judged", records.table("judged", judged))
    (found,) = check(results)
    assert "column value: 1 values differ" in found.what
    make(results)
    (own / "tables/runs.parquet").unlink()
    assert [each.what for each in check(results)] == ["is missing"]


def test_what_is_beyond_its_bound_is_withheld_and_says_by_how_much(results: Path) -> None:
    assert cells(make(results))["decode", "tokens_per_second"]["n"] == "3"
    slow = {**PEAKS, "bandwidth_bytes_per_s": PEAKS["bandwidth_bytes_per_s"] / 1e4}
    (results / "devices/bench/peaks.json").write_text(json.dumps(slow))
    own = make(results)
    for metric in ("tokens_per_second", "duration"):
        row = cells(own)["decode", metric]
        assert (row["n"], row["median"]) == ("0", "")
        assert "beyond the physical bound of" in row["gate"] and "(bandwidth) by" in row["gate"]
    assert cells(own)["image_encode", "duration"]["n"] == "3"
    assert "10 1/s is beyond" in cells(own)["decode", "tokens_per_second"]["gate"]
    with (own / "tables/ledger.csv").open(newline="") as stream:
        found = [row for row in csv.DictReader(stream) if row["phase"] == "decode"]
    assert {row["verdict"] for row in found} == {"not measured"}
    assert all("beyond the physical bound" in row["reason"] and not row["ours"] for row in found)
    assert check(results) == []


@pytest.mark.parametrize("path", ["bounds/bench.csv", "tables/ledger.csv"])
def test_verify_names_changed_bounds_and_ledger(results: Path, path: str) -> None:
    own = make(results)
    text = (own / path).read_text()
    (own / path).write_text(text.replace("tokens_per_second", "tokens_per_hour", 1))
    (difference,) = check(results)
    assert difference.path.endswith(path) and "1 lines differ" in difference.what


def test_verify_names_what_another_threshold_changed(results: Path) -> None:
    make(results)
    assert {Path(each.path).name for each in check(results, {**GATES, "min_phase_ms": 400})} == {
        "bench.parquet",
        "runs.parquet",
        "cells.csv",
        "ledger.csv",
    }


def test_verify_without_an_experiment(tmp_path: Path) -> None:
    (found,) = check(tmp_path)
    assert "no index" in found.what


def test_a_cell_that_was_not_measured_has_rows_without_numbers_and_the_reason(tmp_path: Path) -> None:
    absent = {**CELL, "cell": "other-bbbbbbbb", "stack": None}
    index = {"format": 1, "experiment": "x", "device": "bench", "runs": []}
    paths = {"cells": {"format": 1, "experiment": "x", "cells": [CELL, absent]}}
    paths["block"] = {**index, "unmeasured": {CELL["cell"]: "no phone is connected"}}
    for name, value in paths.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    records.write(tmp_path / "judged.parquet", "judged", records.table("judged", []))
    aggregate(
        [tmp_path / "judged.parquet"],
        [tmp_path / "block.json"],
        tmp_path / "cells.json",
        tmp_path / "tables",
        **BOOTSTRAP,
    )
    with (tmp_path / "tables/cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["cell"]: row["gate"] for row in rows} == {
        CELL["cell"]: "no phone is connected",
        "other-bbbbbbbb": "no run of it is in its block",
    }
    assert {(row["n"], row["median"], row["mean"]) for row in rows} == {("0", "", "")}
    first = [(row["phase"], row["metric"], row["unit"]) for row in rows if row["cell"] == CELL["cell"]]
    assert first == [
        ("load", "duration", "ms"),
        ("text_prefill", "duration", "ms"),
        ("image_encode", "duration", "ms"),
        ("image_prefill", "duration", "ms"),
        ("decode", "duration", "ms"),
        ("decode", "tokens_per_second", "1/s"),
        ("run", "duration", "ms"),
    ]
