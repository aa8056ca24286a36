"""From raw runs to the tables, the same bytes each time; and verify finds what was changed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from handmade import CELL, TIMING, output, stdout_0_3_16, write_block

from pocketvlm.analyse import records
from pocketvlm.analyse.gates import judge_file
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.tables import aggregate
from pocketvlm.analyse.verify import verify
from pocketvlm.errors import IntegrityError, WorkloadError

GATES = {"agreement_percent": 2, "agreement_ms": 5, "min_sensor_coverage_percent": 90}
BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 1}


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
    judge_file(own / "records/bench/metrics.parquet", gates, own / "judged/bench.parquet")
    aggregate(
        [own / "judged/bench.parquet"],
        [own / "blocks/bench.json"],
        own / "cells.json",
        own / "tables",
        **BOOTSTRAP,
    )
    return own


def cells(own: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (own / "tables/cells.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        assert tuple(reader.fieldnames or ()) == records.CELLS_CSV
    return {(row["phase"], row["metric"]): row for row in rows}


def check(results: Path, gates: dict[str, float] = GATES) -> list[Any]:
    return verify("x", results, results / "x/cells.json", thresholds=gates, bootstrap=BOOTSTRAP)


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


def test_a_disagreement_reaches_the_table(tmp_path: Path) -> None:
    wrong = [(4_000_100, TIMING.replace(b"300.00 ms", b"250.00 ms"))]
    write_block(tmp_path, seen=output(stdout_0_3_16(), wrong))
    rows = cells(make(tmp_path))
    assert rows["decode", "duration"]["n"] == "0"
    assert "observed and reported decode differ by 18.8 % and 47 ms" in rows["decode", "duration"]["gate"]
    assert rows["image_encode", "duration"]["n"] == "3"
    # A new threshold judges anew without parsing anything.
    before = (tmp_path / "x/records/bench/metrics.parquet").stat().st_mtime_ns
    judge_file(tmp_path / "x/records/bench/metrics.parquet", {}, tmp_path / "j.parquet")
    assert set(pq.read_table(tmp_path / "j.parquet").column("gate").to_pylist()) == {""}
    assert (tmp_path / "x/records/bench/metrics.parquet").stat().st_mtime_ns == before


def test_equal_input_gives_equal_bytes(results: Path, tmp_path: Path) -> None:
    own = make(results)
    files = sorted(path for path in own.rglob("*") if path.suffix in (".parquet", ".csv"))
    assert len(files) == 7
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


def test_verify_names_what_another_threshold_changed(results: Path) -> None:
    make(results)
    assert {Path(each.path).name for each in check(results, {**GATES, "min_phase_ms": 400})} == {
        "bench.parquet",
        "runs.parquet",
        "cells.csv",
    }


def test_verify_without_an_experiment(tmp_path: Path) -> None:
    (found,) = check(tmp_path)
    assert "no index" in found.what
