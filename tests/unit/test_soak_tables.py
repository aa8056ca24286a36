"""The soak's tables from raw runs: times, gates, reasons, seconds that two runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.soak.runs import EXACT, GAUGE, by_second, clocks_of, read_soak_run, series_of
from pocketvlm.analyse.soak.tables import RUN, SERIES, SUMMARY, tabulate
from pocketvlm.analyse.soak.verify import verify_soak
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import write_json
from tests.synthetic_soaks import BOOTSTRAP
from tests.unit.handmade import CELL, IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run

NAME = CELL["cell"]
KEY = "3" * 64
SOAK = {"duration_s": 60, "busy_percent": 100, "first_s": 60, "throttle_percent": 10}
BEGIN_US = 7_000_000_000
STEP_US = 5_200_000


def write(results: Path, runs: int = 12, *, charging_at: int | None = None, **changes: Any) -> list[Path]:
    """Write a soak of five-second runs, 0.2 s between them; return the tables' paths after making them."""
    listed = []
    for number in range(runs):
        texts = [(-500, "battery.status", "Charging" if number == charging_at else "Discharging")]
        folder = results / f"raw/{KEY}/{number:02d}"
        start_us = BEGIN_US + number * STEP_US
        seen = output(stdout_0_3_16(), stderr_0_3_16())
        sha = write_run(folder, seen, role="soak", start_us=start_us, texts=texts)
        listed.append({"run": f"{KEY}/{number:02d}", "meta_sha256": sha})
    soak = {
        "cell": NAME,
        "soak": "s1",
        "runs": listed,
        "cut_short": [{"soak": "s0", "runs": 2, "seconds": 9}],
    }
    index = {"format": 1, "experiment": "x", "device": "bench", "soaks": [soak], "unmeasured": {}, **changes}
    write_json(results / "x/soak/bench.json", index)
    write_json(results / "x/cells.json", {"format": 1, "experiment": "x", "cells": [CELL]})
    write_json(results / "devices/bench/identity.json", IDENTITY)
    return [results / f"x/tables/{name}.csv" for name in ("soak", "soak_summary", "soak_series")]


def make(results: Path, paths: list[Path], gates: dict[str, float] | None = None) -> tuple[pd.DataFrame, ...]:
    """Make the tables and read them."""
    tabulate(
        [results / "x/soak/bench.json"],
        [results / "devices/bench/identity.json"],
        results / "x/cells.json",
        results / "raw",
        soak=SOAK,
        gates=gates or {},
        bootstrap=BOOTSTRAP,
        runs=paths[0],
        summary=paths[1],
        series=paths[2],
    )
    return tuple(pd.read_csv(path) for path in paths)


def test_a_row_a_run_a_row_a_quantity_a_row_a_second(tmp_path: Path) -> None:
    runs, summary, series = make(tmp_path, write(tmp_path))
    assert len(runs) == 12
    assert runs["start_s"].tolist() == pytest.approx([5.2 * n for n in range(12)])
    assert runs["gap_s"].dropna().tolist() == pytest.approx([0.2] * 11)
    # Three steps in 0.3 s; half an ampere at four volts; 1 K/s from 40 degrees.
    assert runs["tokens_per_second"].unique() == pytest.approx([10.0])
    assert runs["power_w"].unique() == pytest.approx([2.0])
    assert runs["energy_j"].unique() == pytest.approx([10.0])
    assert runs["temperature_start.cpu"].unique() == pytest.approx([40.0])
    assert runs["temperature_end.cpu"].unique() == pytest.approx([44.9])
    assert list(runs.columns[6 : 6 + len(RUN)]) == list(RUN)
    why = "bench names no sensor of cpu_frequency; bench names no sensor of time_in_state"
    assert runs["reason"].tolist() == [f"clock_mhz: {why}"] * 12
    assert list(summary.columns) == list(SUMMARY) and list(series.columns) == list(SERIES)
    told = summary.set_index("quantity")
    assert told.loc["sustained_ratio", "value"] == 1 and told.loc["cut_short", "value"] == 1
    assert told.loc["energy", "value"] == pytest.approx(120)
    assert told.loc["clock_first", "note"] == why
    hottest = series[series["quantity"] == "temperature"].set_index("t_s")["value"]
    assert hottest.index.is_unique and hottest.index.min() == 0 and hottest.index.max() == 62
    # In second 5 the first run ends at 44.9 degrees and the second begins at 40: the highest counts.
    assert hottest[4] == pytest.approx(44.9) and hottest[5] == pytest.approx(40.7)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    paths = write(tmp_path)
    make(tmp_path, paths)
    before = [path.read_bytes() for path in paths]
    make(tmp_path, paths)
    assert [path.read_bytes() for path in paths] == before


def test_what_a_gate_withholds_is_na_with_the_gate(tmp_path: Path) -> None:
    runs, summary, _ = make(tmp_path, write(tmp_path), {"min_phase_ms": 400})
    assert runs["tokens_per_second"].isna().all()
    assert runs["reason"].str.contains("tokens_per_second: the phase lasted 300 ms, 400 ms are needed").all()
    told = summary.set_index("quantity")
    assert pd.isna(told.loc["sustained_ratio", "value"])
    assert told.loc["sustained_ratio", "note"] == "too few runs with a speed: 0 of the 6 that are needed"
    assert told.loc["runs_without_speed", "value"] == 12


def test_a_run_on_a_charging_battery_has_no_power_and_no_line(tmp_path: Path) -> None:
    runs, summary, series = make(tmp_path, write(tmp_path, charging_at=5))
    assert runs["power_w"].isna().tolist() == [number == 5 for number in range(12)]
    assert "power_w: the battery was not discharging" in runs["reason"][5]
    told = summary.set_index("quantity")
    assert pd.isna(told.loc["energy", "value"]) and "not discharging" in told.loc["energy", "note"]
    assert told.loc["power_first", "value"] == pytest.approx(2)
    power = set(series.loc[series["quantity"] == "power", "t_s"])
    assert not power & {27, 28, 29, 30} and {25, 32} <= power


def test_a_cell_that_was_not_soaked_is_a_row_with_the_reason(tmp_path: Path) -> None:
    paths = write(tmp_path, soaks=[], unmeasured={NAME: "bench is not connected"})
    runs, summary, series = make(tmp_path, paths)
    assert runs.empty and series.empty
    assert summary["note"].tolist() == ["not soaked: bench is not connected"]
    assert summary["value"].isna().all()


def test_a_changed_run_and_an_unknown_cell_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)
    (tmp_path / f"raw/{KEY}/03/stdout").write_text("other")
    with pytest.raises(IntegrityError, match="stdout"):
        make(tmp_path, paths)
    write_json(tmp_path / "x/cells.json", {"cells": []})
    with pytest.raises(IntegrityError, match=r"not in the experiment.*forcerun measure_soak"):
        make(tmp_path, paths)


def test_exact_clocks_are_taken_before_a_gauge_and_named(tmp_path: Path) -> None:
    gauge = {("run", "cpu_frequency.policy0"): Value(1500.0, 9), ("run", "gpu_frequency"): Value(300.0, 9)}
    exact = {("run", "clock_mean.policy0"): Value(1420.0, 9)}
    assert clocks_of(gauge) == ({"policy0": 1500.0, "gpu": 300.0}, GAUGE, "")
    assert clocks_of({**gauge, **exact}) == ({"policy0": 1420.0, "gpu": 300.0}, EXACT, "")
    unseen = {("run", "clock_mean.policy0"): Value(None, 0, "denied")}
    assert clocks_of({**gauge, **unseen})[1] == GAUGE
    assert clocks_of(unseen) == ({}, "", "denied")


def test_a_run_without_any_sensor_has_an_empty_series(tmp_path: Path) -> None:
    bare = {**IDENTITY, "sensors": [], "missing": []}
    write_run(tmp_path / f"{KEY}/00", output(stdout_0_3_16(), stderr_0_3_16()), role="soak")
    read = read_soak_run(tmp_path / f"{KEY}/00", None, "llamacpp", bare, {})
    assert read.run.temperature_end == {} and read.run.power.value is None and read.run.power.reason
    assert by_second([series_of(read, read.run.start_us)]) == []
    assert read.run.speed.value == pytest.approx(10)


def test_verifying_finds_nothing_and_then_what_was_changed(tmp_path: Path) -> None:
    paths = write(tmp_path)
    make(tmp_path, paths)

    def differences() -> list[str]:
        found = verify_soak(
            "x",
            tmp_path,
            tmp_path / "x/cells.json",
            [str(tmp_path / "devices/bench/identity.json")],
            devices=["bench"],
            soak=SOAK,
            thresholds={},
            bootstrap=BOOTSTRAP,
        )
        return [f"{Path(one.path).name}: {one.what}" for one in found]

    assert differences() == []
    paths[0].write_text(paths[0].read_text().replace(",10,", ",11,", 1))
    assert differences() == ["soak.csv: 1 lines differ from what the raw runs give, first in line 2"]
    (tmp_path / f"raw/{KEY}/03/stdout").write_text("other")
    (told,) = differences()
    assert told.startswith("soak: cannot be made again: stdout")
    assert not list((tmp_path / "x").glob(".verify-*"))


def test_a_run_that_was_not_on_its_backend_is_withheld(tmp_path: Path) -> None:
    folder = tmp_path / f"raw/{KEY}/00"
    write_run(folder, output(stdout_0_3_16(), stderr_0_3_16()), role="soak")
    on_cpu, elsewhere = (
        read_soak_run(folder, None, "llamacpp", IDENTITY, {}, backend).run.speed
        for backend in ("cpu", "lavapipe")
    )
    assert on_cpu.value == pytest.approx(10.0)
    assert elsewhere.value is None and "did not compute on lavapipe" in elsewhere.reason
