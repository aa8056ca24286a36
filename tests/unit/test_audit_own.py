"""Our own tables by the measure of the audit: they hold, and whatever is changed in them is found."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from handmade import CELL, IDENTITY, write_block

from pocketvlm.analyse import battery_life, records
from pocketvlm.analyse.audit import own, row
from pocketvlm.analyse.audit.identities import identities
from pocketvlm.analyse.audit.row import CONSISTENT, CONTRADICTION, UNKNOWN, Row
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.tables import aggregate
from pocketvlm.errors import IntegrityError
from tests.synthetic_records import write_study

RECORDS = ("phases", "samples", "answers")


class Tables:
    """The experiment `x` of one cell, from raw runs to tables by the workflow's own code."""

    def __init__(self, results: Path, gates: dict[str, float]) -> None:
        write_block(results)
        self.own = results / "x"
        self.identity = results / "devices/bench/identity.json"
        # As identify_device writes it; the block's records do not need it.
        self.identity.write_text(json.dumps({**IDENTITY, "cpus": 2, "memory_bytes": 8 << 30}))
        folder = self.own / "records/bench"
        index, cells = self.own / "blocks/bench.json", self.own / "cells.json"
        parse_block(index, results / "raw", self.identity, cells, folder)
        judged = judge(records.read(folder / "metrics.parquet", "metrics"), gates)
        records.write(self.own / "judged/bench.parquet", "judged", judged)
        aggregate(
            [self.own / "judged/bench.parquet"], [index], cells, self.own / "tables",
            resamples=200, confidence=0.95, seed=1,
        )  # fmt: skip
        self.estimate()

    def estimate(self) -> None:
        battery_life.write(
            self.own / "tables/battery_life.csv",
            battery_life.measured(
                self.own / "cells.json", self.own / "tables/cells.csv",
                capacity_mah=5000, voltage_v=3.9, queries_per_minute=[1, 20],
            ),
        )  # fmt: skip

    def audit(self) -> list[Row]:
        tables = self.own / "tables"
        return own.audit_tables(
            self.own / "cells.json",
            tables / "runs.parquet",
            tables / "cells.csv",
            tables / "battery_life.csv",
            records={"bench": {name: self.own / f"records/bench/{name}.parquet" for name in RECORDS}},
            identities_of={"bench": self.identity},
        )

    def verdicts(self) -> dict[str, str]:
        """Return the verdict of each check; of several rows the worst."""
        found: dict[str, str] = {}
        for each in self.audit():
            if found.get(each.id) != CONTRADICTION:
                found[each.id] = each.verdict
        return found

    def edit_parquet(self, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        path = self.own / name
        change(pd.read_parquet(path)).to_parquet(path)

    def edit_csv(self, name: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        path = self.own / "tables" / name
        with path.open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        names = list(lines[0])
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(change(lines))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path, {"min_phase_ms": 150})


Corruption = Callable[[Tables], None]


def metric(phase: str, name: str, value: Callable[[float], float], *, only: int | None = None) -> Corruption:
    """Return what changes a metric in runs.parquet, of all runs or of one; a missing one becomes known."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        at = (frame["phase"] == phase) & (frame["metric"] == name)
        assert at.any(), (phase, name)
        if only is not None:
            at &= frame["run"] == sorted(frame["run"].unique())[only]
        frame.loc[at, "value"] = frame.loc[at, "value"].fillna(0.0).map(value)
        frame.loc[at, ["reason", "gate"]] = ""
        return frame

    return lambda tables: tables.edit_parquet("tables/runs.parquet", change)


def double(phase: str, name: str) -> Corruption:
    return metric(phase, name, lambda value: 2 * value)


def to(phase: str, name: str, new: float) -> Corruption:
    return metric(phase, name, lambda _: new)


def both(*changes: Corruption) -> Corruption:
    def change(tables: Tables) -> None:
        for each in changes:
            each(tables)

    return change


def record(name: str, column: str, new: Callable[[Any], Any], where: tuple[str, str]) -> Corruption:
    """Return what changes a column of a record in the rows where another column has a value."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        at = frame[where[0]] == where[1]
        assert at.any()
        frame.loc[at, column] = frame.loc[at, column].map(new)
        return frame

    return lambda tables: tables.edit_parquet(f"records/bench/{name}.parquet", change)


def line(name: str, column: str, new: Callable[[str], str], **where: str) -> Corruption:
    """Return what changes a column of a table in the first row with some values."""

    def change(lines: list[dict[str, str]]) -> list[dict[str, str]]:
        chosen = next(each for each in lines if all(each[key] == value for key, value in where.items()))
        chosen[column] = new(chosen[column])
        return lines

    return lambda tables: tables.edit_csv(name, change)


def without_a_reason(tables: Tables) -> None:
    line("cells.csv", "gate", lambda _: "", n="0")(tables)


def without_a_row(tables: Tables) -> None:
    tables.edit_csv("cells.csv", lambda lines: lines[1:])


DECODE = {"phase": "decode", "metric": "duration"}
CORRUPTIONS: dict[str, Corruption] = {
    "definitions": record("phases", "phase", lambda _: "text_prefill", ("start_boundary", "start")),
    "phases_sum": double("run", "duration"),
    "phases_apart": record("phases", "end_us", lambda us: us + 5, ("end_boundary", "first_token")),
    "phase_duration": double("image_encode", "duration"),
    "durations_sum": double("load", "duration"),
    "first_token": double("run", "time_to_first_token"),
    "first_token_after_load": double("run", "time_to_first_token_after_load"),
    "median_latency": to("decode", "inter_token_latency_p50", 1e4),
    "latency_order": both(
        to("decode", "inter_token_latency_p50", 5), to("decode", "inter_token_latency_p99", 4)
    ),
    "rate": double("decode", "tokens_per_second"),
    "time_per_token": double("image_prefill", "tokens_per_second"),
    "budget": to("decode", "token_budget", 5),
    "answer": record("answers", "tokens", lambda tokens: tokens + 1, ("text", " a b c d")),
    "agreement": metric("decode", "agreement.decode", lambda percent: percent + 3),
    "energy": double("image_prefill", "power"),
    "energy_net": double("image_prefill", "energy_net"),
    "energy_parts": metric("run", "energy", lambda joules: joules / 2),
    "energy_per_token": both(to("decode", "energy", 6), to("decode", "energy_per_token", 1.5)),
    "current_voltage": record("samples", "value", lambda volts: volts * 1.1, ("quantity", "voltage")),
    "below_idle": to("run", "power_net", -1),
    "temperature_rise": metric("load", "temperature_rise.cpu", lambda kelvin: kelvin + 1),
    "temperature_max": to("load", "temperature_max.cpu", 99),
    "temperature_range": to("run", "temperature_max.cpu", 40_000),
    "system_cpu": to("run", "system_cpu", 900),
    "workload_cpu": to("image_prefill", "workload_cpu", 900),
    "memory_part": double("load", "rss_peak"),
    "memory": to("run", "rss_peak", 1e6),
    "inside_total": to("run", "reported.total", 100),
    "outside_total_load": to("load", "reported.load", 4900),
    "inside_prompt_eval": to("image_encode", "reported.image_encode", 9000),
    "table_rows": without_a_row,
    "table_n": line("cells.csv", "n", lambda n: str(int(n) - 1), **DECODE),
    "table_mean": line("cells.csv", "mean", lambda text: f"{float(text) * 1.00001:.9g}", **DECODE),
    "table_median": line("cells.csv", "median", lambda _: "", **DECODE),
    "table_p05": line("cells.csv", "p05", lambda text: f"{float(text) * 1.1:.9g}", **DECODE),
    "table_p95": line("cells.csv", "p95", lambda text: f"{float(text) * 1.1:.9g}", **DECODE),
    "reasons": without_a_reason,
    "battery_slot": line("battery_life.csv", "query_s", lambda _: "61", queries_per_minute="1"),
    "battery_energy": line(
        "battery_life.csv", "hours", lambda hours: f"{2 * float(hours):.6g}", queries_per_minute="1"
    ),
}  # fmt: skip
"""What breaks each check."""


def test_tables_made_by_the_workflow_hold(tables: Tables) -> None:
    rows = tables.audit()
    own.refuse(rows, "self_audit.csv")
    found = {each.id: each for each in rows}
    assert set(found) == set(CORRUPTIONS)
    silent = {each.id for each in rows if each.verdict == UNKNOWN}
    # Four tokens in 300 ms have too few gaps and samples, and 20 queries a minute are more than fit.
    assert silent == {"median_latency", "latency_order", "energy_per_token", "battery_slot"}
    assert "3 gaps between tokens, 5 are needed" in found["median_latency"].consequence
    assert [each.verdict for each in rows if each.id == "battery_slot"] == [CONSISTENT, UNKNOWN]


def test_invented_records_hold(tmp_path: Path) -> None:
    """What figures and report are tested with obeys the same formulas."""
    study = write_study(tmp_path / "results")
    hours = tmp_path / "battery_life.csv"
    rows = battery_life.measured(
        study.cells_json, study.cells_csv, capacity_mah=5000, voltage_v=3.9, queries_per_minute=[1]
    )
    battery_life.write(hours, rows)
    found = own.audit_tables(
        study.cells_json,
        study.runs,
        study.cells_csv,
        hours,
        records={
            device: {name: folder / f"{name}.parquet" for name in RECORDS}
            for device, folder in study.records.items()
        },
        identities_of=study.identities,
    )
    own.refuse(found, "self_audit.csv")
    assert sum(each.verdict == CONSISTENT for each in found) > 60


@pytest.mark.parametrize("id_", CORRUPTIONS)
def test_every_check_finds_what_breaks_it(tables: Tables, id_: str) -> None:
    assert tables.verdicts()[id_] != CONTRADICTION
    CORRUPTIONS[id_](tables)
    assert tables.verdicts()[id_] == CONTRADICTION
    with pytest.raises(IntegrityError, match="contradict themselves"):
        own.refuse(tables.audit(), "self_audit.csv")


def test_every_formula_is_tried() -> None:
    assert {identity.id for identity in identities("llamacpp")} <= set(CORRUPTIONS)
    counters = {"inside_total", "inside_prompt_eval", "outside_total_load"}
    assert {i.id for i in identities("llamacpp")} - {i.id for i in identities(None)} == counters


def test_a_contradiction_names_cell_formula_numbers_and_run(tables: Tables) -> None:
    metric("decode", "tokens_per_second", lambda rate: 2 * rate, only=1)(tables)
    (found,) = (each for each in tables.audit() if each.id == "rate")
    assert (found.a, found.b, found.difference) == (6.0, 3.0, 3.0)
    assert "1 of " in found.consequence
    with pytest.raises(IntegrityError) as caught:
        own.refuse([found], "results/x/tables/self_audit.csv")
    for part in (CELL["cell"], found.formula, "6 ", "3 ", "decode, run 22222222/02", "verify"):
        assert part in str(caught.value)


def test_a_number_that_is_withheld_contradicts_nothing(tables: Tables) -> None:
    def gate(frame: pd.DataFrame) -> pd.DataFrame:
        at = frame["metric"].isin(["tokens_per_second", "time_to_first_token"])
        frame.loc[at, "value"] *= 2
        frame.loc[at, "gate"] = "the machine was stalled"
        return frame

    tables.edit_parquet("tables/runs.parquet", gate)
    found = {each.id: each for each in tables.audit()}
    for id_ in ("rate", "time_per_token", "first_token"):
        assert found[id_].verdict == UNKNOWN
        assert "withheld: the machine was stalled" in found[id_].consequence
        assert found[id_].a is None


def test_a_run_withheld_for_its_length_contradicts_nothing(tables: Tables) -> None:
    def withhold(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame["metric"] == "token_budget", "value"] = 9.0
        frame.loc[frame["metric"] == "duration", "gate"] = "the run sampled 4 tokens, its budget is 9"
        return frame

    tables.edit_parquet("tables/runs.parquet", withhold)
    (found,) = (each for each in tables.audit() if each.id == "budget")
    assert found.verdict == UNKNOWN and "its budget is 9" in found.consequence


def test_one_missing_number_leaves_the_others(tables: Tables) -> None:
    def forget(frame: pd.DataFrame) -> pd.DataFrame:
        at = (frame["metric"] == "energy") & (frame["phase"] == "image_prefill")
        frame.loc[at, "value"] = None
        frame.loc[at, "reason"] = "the battery was charging"
        return frame

    tables.edit_parquet("tables/runs.parquet", forget)
    (found,) = (each for each in tables.audit() if each.id == "energy")
    assert found.verdict == CONSISTENT
    assert found.consequence.startswith("holds for all 9 numbers; 12 cannot be had: ")


def test_the_frameworks_own_accounting_is_shown_on_our_runs(tables: Tables) -> None:
    """load, 900 ms, is outside total: 3500 - 2600 - 300 = 600 ms are all that total has beside its parts."""
    found = {each.id: each for each in tables.audit()}
    assert (found["inside_total"].a, found["inside_total"].b) == (2900, 3500)
    assert "600.0 ms of total are loading the vision tower" in found["inside_total"].consequence
    told = found["outside_total_load"].consequence
    assert "load of 900.0 ms cannot be in the 600.0 ms" in told
    assert (found["inside_prompt_eval"].a, found["inside_prompt_eval"].b) == (2400, 2600)


def test_a_cell_that_was_not_measured_is_told_not_judged(tables: Tables) -> None:
    path = tables.own / "cells.json"
    study = json.loads(path.read_text())
    away = {"cell": "phone.b", "device": "phone", "adapter": None, "unavailable": "the phone is away"}
    study["cells"].append({**CELL, **away})
    path.write_text(json.dumps(study))

    def with_row(lines: list[dict[str, str]]) -> list[dict[str, str]]:
        empty = dict.fromkeys(lines[0], "")
        told = {
            "cell": "phone.b",
            "phase": "run",
            "metric": "duration",
            "n": "0",
            "gate": "the phone is away",
        }
        return [*lines, {**empty, **told}]

    tables.edit_csv("cells.csv", with_row)
    tables.estimate()
    rows = [each for each in tables.audit() if each.subject.startswith("phone.b")]
    assert {each.id: each.verdict for each in rows} == {
        "measured": UNKNOWN,
        "reasons": CONSISTENT,
        "battery_slot": UNKNOWN,
    }
    assert {each.consequence for each in rows if each.verdict == UNKNOWN} == {"the phone is away"}
    own.refuse(tables.audit(), "self_audit.csv")


def test_without_any_run(tables: Tables) -> None:
    tables.edit_parquet("tables/runs.parquet", lambda frame: frame[frame["run"] == "none"])
    with (tables.own / "tables/cells.csv").open() as stream:
        header = stream.readline()
    (tables.own / "tables/cells.csv").write_text(header)
    (tables.own / "tables/battery_life.csv").write_text(",".join(battery_life.COLUMNS) + "\n")
    rows = tables.audit()
    assert {each.id: each.verdict for each in rows} == {
        "definitions": UNKNOWN,
        "measured": UNKNOWN,
        "reasons": CONSISTENT,
    }


@pytest.mark.parametrize("file", ["tables/runs.parquet", "records/bench/phases.parquet"])
def test_a_file_that_is_no_record(tables: Tables, file: str) -> None:
    (tables.own / file).write_bytes(b"PAR1 not at all")
    with pytest.raises(IntegrityError, match="is no record"):
        tables.audit()


def test_files_of_two_experiments(tables: Tables) -> None:
    tables.edit_parquet("records/bench/phases.parquet", lambda frame: frame[frame["run"].str.endswith("/01")])
    with pytest.raises(IntegrityError, match=r"is not in the record phases"):
        tables.audit()
    path = tables.own / "cells.json"
    path.write_text(json.dumps({"experiment": "x", "cells": [{**CELL, "cell": "other"}]}))
    with pytest.raises(IntegrityError, match=re.escape("is not in the experiment")):
        tables.audit()


def test_the_table(tables: Tables, tmp_path: Path) -> None:
    rows = tables.audit()
    row.write(tmp_path / "self_audit.csv", rows)
    with (tmp_path / "self_audit.csv").open(newline="") as stream:
        told = list(csv.DictReader(stream))
    assert tuple(told[0]) == row.COLUMNS and len(told) == len(rows)
    for each in told:
        assert each["consequence"] and each["verdict"] in row.VERDICTS
        assert (each["a"] == "") == (each["verdict"] == UNKNOWN)
    assert own.verdicts(rows) == f"0 contradiction, {len(rows) - 4} consistent, 4 cannot be computed"
