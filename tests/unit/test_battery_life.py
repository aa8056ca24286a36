"""Hours on a battery: the model, the paper's case with its impossible part, and what was measured."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse import battery_life
from pocketvlm.analyse.battery_life import IMPOSSIBLE, POSSIBLE, UNKNOWN, battery, estimate, query_for
from pocketvlm.config.paper import load_paper
from pocketvlm.errors import ConfigError, IntegrityError

ROOT = Path(__file__).parents[2]
PAPER = load_paper(ROOT / "config/paper/arxiv-2507.08505.yaml")
VOLTS = 3.85


def test_a_query_that_fills_half_its_slot() -> None:
    """5 Ah at 4 V are 20 Wh; 10 W for half of the time and 2 W for the rest are 6 W: 3 h 20 min."""
    life = estimate(battery(5000, 4.0), power_w=10, idle_w=2, query_s=30, queries_per_minute=1)
    assert life.verdict == POSSIBLE and life.reason == ""
    assert (life.slot_s, life.duty, life.mean_power_w) == (60, 0.5, 6)
    assert life.hours == pytest.approx(20 / 6)
    assert (life.continuous_hours, life.idle_hours) == (2, 10)


def test_a_query_longer_than_its_slot_has_no_hours() -> None:
    life = estimate(battery(5000, 4.0), power_w=10, idle_w=2, query_s=60.001, queries_per_minute=1)
    assert life.verdict == IMPOSSIBLE
    assert life.hours is None and life.mean_power_w is None
    assert "does not fit into its slot of 60 s" in life.reason
    assert life.continuous_hours == 2
    full = estimate(battery(5000, 4.0), power_w=10, idle_w=2, query_s=60, queries_per_minute=1)
    assert full.verdict == POSSIBLE and full.hours == 2


def test_without_the_power_at_rest() -> None:
    life = estimate(battery(5000, 4.0), power_w=10, idle_w=None, query_s=30, queries_per_minute=1)
    assert life.verdict == UNKNOWN and life.hours is None and "at rest" in life.reason


def test_a_curve_is_integrated() -> None:
    cell = battery(1000, [[0, 3.0], [10, 3.6], [100, 4.2]])
    assert cell.voltage_v == pytest.approx(0.1 * 3.3 + 0.9 * 3.9)
    assert cell.energy_wh == pytest.approx(cell.voltage_v)
    assert battery(1000, 3.84).energy_wh == pytest.approx(3.84)


@pytest.mark.parametrize(
    "curve",
    [[[0, 3], [90, 4]], [[5, 3], [100, 4]], [[0, 3], [0, 3], [100, 4]], [[0, 3], [60, 4], [50, 4], [100, 4]]],
)
def test_a_curve_must_ascend_over_the_whole_charge(curve: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="does not ascend"):
        battery(1000, curve)


@given(
    power=st.floats(0.5, 20), idle=st.floats(0.05, 0.45), rate=st.floats(0.1, 10), share=st.floats(0.01, 0.99)
)
def test_the_query_for_some_hours_gives_them(power: float, idle: float, rate: float, share: float) -> None:
    cell = battery(5000, VOLTS)
    length = share * 60 / rate
    life = estimate(cell, power_w=power, idle_w=idle, query_s=length, queries_per_minute=rate)
    assert life.hours is not None and life.hours < cell.energy_wh / idle
    again = query_for(cell, life.hours, power_w=power, idle_w=idle, queries_per_minute=rate)
    assert again == pytest.approx(length, rel=1e-6)


def stacks() -> dict[str, battery_life.Row]:
    return {str(row.stack): row for row in battery_life.published(PAPER, VOLTS)}


def test_the_papers_case_is_impossible_at_its_rate() -> None:
    case = PAPER.values["energy"]["battery"]
    for name in ("llava-llamacpp", "llava-mllm"):
        row = stacks()[name]
        assert row.verdict == IMPOSSIBLE and row.hours is None
        assert row.query_s == PAPER.values["table2"]["rows"][name]["total"] / 1e3 > row.slot_s
        assert "does not fit into its slot" in row.reason
        assert row.claimed_hours == case["cpu_only_llava_h"]
        assert row.continuous_hours is not None and row.continuous_hours < row.claimed_hours / 4


def test_the_papers_hours_need_another_query() -> None:
    """Its 8 h come out of the model, of a query that is a tenth of the published ones."""
    row = stacks()["llava-llamacpp"]
    assert row.query_s_for_claim is not None and row.claimed_hours is not None
    assert row.power_w is not None and row.query_s is not None
    life = estimate(
        battery(row.capacity_mah, VOLTS),
        power_w=row.power_w,
        idle_w=row.idle_w,
        query_s=row.query_s_for_claim,
        queries_per_minute=row.queries_per_minute,
    )
    assert life.hours == pytest.approx(row.claimed_hours)
    assert row.query_s_for_claim < row.query_s / 5


def test_the_papers_gpu_path_is_claimed_beyond_rest() -> None:
    row = stacks()["imp-mlcimp"]
    assert row.verdict == POSSIBLE and row.hours is not None and row.idle_hours is not None
    assert row.claimed_hours is not None
    assert row.hours < row.idle_hours < row.claimed_hours
    assert row.query_s_for_claim is None
    assert "are claimed, the model gives" in row.reason
    assert stacks()["mobilevlm-llamacpp"].claimed_hours is None


def test_a_stack_whose_power_is_not_printed() -> None:
    values = json.loads(json.dumps(PAPER.values))
    values["energy"]["mobilevlm"]["power_w"] = None
    paper = dataclasses.replace(PAPER, values=values)
    row = {r.stack: r for r in battery_life.published(paper, VOLTS)}["mobilevlm-llamacpp"]
    assert row.verdict == UNKNOWN and row.hours is None
    assert "energy.mobilevlm.power_w" in row.reason


CELL = {"cell": "c", "device_kind": "phone", "weights_kind": "synthetic", "stack": None, "unavailable": None}
KNOWN = {"energy": ("60", ""), "duration": ("20000", ""), "power": ("3", ""), "power_net": ("2", "")}


def table(folder: Path, numbers: dict[str, tuple[str, str]], **cell: Any) -> list[battery_life.Row]:
    (folder / "cells.json").write_text(json.dumps({"experiment": "x", "cells": [{**CELL, **cell}]}))
    with (folder / "cells.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cell", "phase", "metric", "median", "gate"])
        writer.writerows(["c", "run", metric, *told] for metric, told in numbers.items())
        writer.writerow(["c", "decode", "energy", "999", ""])
    return battery_life.measured(
        folder / "cells.json",
        folder / "cells.csv",
        capacity_mah=1000,
        voltage_v=4,
        queries_per_minute=[1, 4],
    )


def test_measured_energies_become_hours(tmp_path: Path) -> None:
    slow, fast = table(tmp_path, KNOWN)
    assert (slow.power_w, slow.idle_w, slow.query_s) == (3, 1, 20)
    assert slow.hours == pytest.approx(4 / (3 * 20 / 60 + 1 * 40 / 60))
    assert slow.verdict == POSSIBLE and slow.reason == ""
    assert fast.verdict == IMPOSSIBLE and fast.hours is None and fast.slot_s == 15


@pytest.mark.parametrize("lacking", KNOWN)
def test_what_was_not_measured_is_na_with_the_reason(tmp_path: Path, lacking: str) -> None:
    for row in table(tmp_path, {**KNOWN, lacking: ("", "no such sensor")}):
        if lacking in ("power", "power_net") and row.slot_s == 15:
            assert row.verdict == IMPOSSIBLE
            continue
        assert row.verdict == UNKNOWN and row.hours is None
        assert "no such sensor" in row.reason
    without = {name: value for name, value in KNOWN.items() if name != lacking}
    assert all(row.hours is None and row.reason for row in table(tmp_path, without))


def test_a_cell_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    row = table(tmp_path, {"duration": ("", "away")}, stack="a", unavailable="the phone is away")[0]
    assert (row.stack, row.verdict, row.reason) == ("a", UNKNOWN, "the phone is away")


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="readable median"):
        table(tmp_path, {**KNOWN, "energy": ("many", "")})


def test_the_table(tmp_path: Path) -> None:
    rows = battery_life.published(PAPER, VOLTS)
    battery_life.write(tmp_path / "b.csv", rows)
    with (tmp_path / "b.csv").open(newline="") as stream:
        told = list(csv.DictReader(stream))
    assert tuple(told[0]) == battery_life.COLUMNS
    assert [line["stack"] for line in told] == [stack.id for stack in PAPER.stacks]
    for line in told:
        assert (line["hours"] == "") == (line["verdict"] != POSSIBLE)
        assert line["hours"] or line["reason"]
