"""A framework that shows little: what cannot be seen is NA with its reason, from parser to tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import CELL, IDENTITY, Output, write_block

from pocketvlm.analyse import battery_life, figures
from pocketvlm.analyse.audit import own
from pocketvlm.analyse.audit.row import CONTRADICTION
from pocketvlm.analyse.bounds import compute_bounds
from pocketvlm.analyse.gates import judge_file
from pocketvlm.analyse.headline import export_tables
from pocketvlm.analyse.ledger import write_ledger
from pocketvlm.analyse.parse import parse_block
from pocketvlm.analyse.tables import aggregate
from pocketvlm.analyse.trace import write_traces
from pocketvlm.config.schema import load_yaml
from pocketvlm.frameworks import ADAPTERS, PHASES, Boundary, Counter, Report
from pocketvlm.provenance import read_json, write_json

UNSEEN = "the program says nothing while it works"
CONFIG = Path(__file__).parents[2] / "config/config.yaml"


def blind(output: Output, **_: Any) -> Report:
    """Nothing but the start is seen, and nothing is counted."""
    return Report(
        boundaries=(Boundary("start", 0, "other"),),
        counters=(Counter("decode", "decode", None, reason="it prints no times"),),
        tokens={"decode": None},
        decode_steps=None,
        answer="yes",
        answer_bytes=b"yes",
        token_times_us=np.array([], dtype=np.int64),
        first_token_us=None,
        unobservable={**dict.fromkeys(PHASES, UNSEEN), "first_token": "it prints its answer in one piece"},
    )


def dim(output: Output, **_: Any) -> Report:
    """The answer is seen as it comes, the rest is what the program says afterwards."""
    return Report(
        boundaries=(Boundary("start", 0, "other"),),
        counters=(
            Counter("load", "load", 900.0, reason="no phase that is seen is loading alone"),
            Counter("decode", "decode", 300.0, reason="no phase that is seen is decoding alone"),
        ),
        tokens={"decode": 4, "text_prefill": 12},
        decode_steps=3,
        answer="yes",
        answer_bytes=b"yes",
        token_times_us=np.array([3_000_000], dtype=np.int64),
        first_token_us=3_000_000,
        unobservable=dict.fromkeys(PHASES, UNSEEN),
    )


@pytest.fixture(scope="module", params=[blind, dim], ids=lambda grammar: str(grammar.__name__))
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A measured block of a framework whose grammar sees that much, and all that follows from it."""
    grammar = ModuleType("dark.grammar")
    grammar.__dict__.update(ACCOUNTING=(), parse=request.param)
    command = ModuleType("dark.command")
    command.__dict__.update(resolve_settings=lambda settings, *, where="settings": dict(settings))
    folder = tmp_path_factory.mktemp("dark") / "results"
    write_block(folder)
    x = folder / "x"
    cell = {**CELL, "adapter": "dark", "framework": "dark-stand-in", "version": "1", "stack": None}
    study = {"title": "t", "repeats": 3, "warmups": 1, "paper": None, "state": {}, "cells": [cell]}
    write_json(x / "cells.json", {**read_json(x / "cells.json"), **study})
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "dark.grammar", grammar)
        patched.setitem(sys.modules, "dark.command", command)
        patched.setitem(ADAPTERS, "dark", "dark")
        analyse(folder, cell)
        yield folder


def analyse(folder: Path, cell: dict[str, Any]) -> None:
    """Make every table, figure and trace of the block."""
    x, index, cells = folder / "x", folder / "x/blocks/bench.json", folder / "x/cells.json"
    analysis = load_yaml(CONFIG, "config")["analysis"]
    records, tables, drawn = x / "records/bench", x / "tables", x / "figures"
    parse_block(index, folder / "raw", IDENTITY, cells, records)
    peaks = {
        **{"bandwidth_bytes_per_s": 1e9, "operations_per_s": 1e12, "cache_bytes": 0, "reason": ""},
        **{"source": "quoted", "sources": {"bandwidth": "p", "operations": "p"}, "device": "bench"},
    }
    write_json(folder / "devices/bench/peaks.json", peaks)
    weights = folder / "weights/nano/dark-Q4_0/model.json"
    write_json(
        weights, {"format": 1, "weights_format": "dark", "kind": "file", "bytes": 10, "sha256": "0" * 64}
    )
    compute_bounds(
        cells=cells, device="bench", metrics=records / "metrics.parquet", block=index,
        peaks=folder / "devices/bench/peaks.json", margin_percent=5.0, destination=x / "bounds/bench.csv",
        made_of={cell["cell"]: {"weights": {"model": str(weights)}, "settings": {}}},
    )  # fmt: skip
    (x / "judged").mkdir()
    judge_file(
        records / "metrics.parquet", analysis["gates"], x / "judged/bench.parquet",
        bounds=x / "bounds/bench.csv", block=index,
    )  # fmt: skip
    aggregate([x / "judged/bench.parquet"], [index], cells, tables, **analysis["bootstrap"])
    runs, summary = pd.read_parquet(tables / "runs.parquet"), pd.read_csv(tables / "cells.csv")
    figures.draw_phases(summary, [cell], [drawn / "phases.svg"])
    figures.draw_throughput(runs, summary, [cell], [drawn / "throughput.svg"])
    figures.draw_energy(runs, summary, [cell], [drawn / "energy.svg"])
    samples, phases = (pd.read_parquet(records / f"{name}.parquet") for name in ("samples", "phases"))
    figures.draw_timeline(samples, phases, runs, cell, IDENTITY, [drawn / f"timeline-{cell['cell']}.svg"])
    write_traces(
        index, folder / "raw", records / "phases.parquet", records / "samples.parquet", cells, x / "t"
    )
    life = battery_life.measured(cells, tables / "cells.csv", **analysis["battery_life"])
    battery_life.write(tables / "battery_life.csv", life)
    write_ledger(
        cells=cells, summary=tables / "cells.csv", runs=tables / "runs.parquet", paper=None, shapes={},
        bounds=[x / "bounds/bench.csv"], peaks=[folder / "devices/bench/peaks.json"],
        bootstrap=analysis["bootstrap"], tolerance_percent=5.0, destination=tables / "ledger.csv",
    )  # fmt: skip
    export_tables(tables / "cells.csv", cells, 0.95, [tables / f"headline.{end}" for end in ("md", "tex")])


def test_what_was_not_seen_is_na_with_its_reason_in_every_table(results: Path) -> None:
    table = pd.read_parquet(results / "x/tables/runs.parquet")
    for phase in PHASES:
        rows = table[(table["phase"] == phase) & (table["metric"] == "duration")]
        assert rows["value"].isna().all() and (rows["reason"] == UNSEEN).all(), phase
    rates = table[table["metric"].isin(["tokens_per_second", "energy_per_token", "inter_token_latency_p50"])]
    assert rates["value"].isna().all() and rates["reason"].ne("").all()
    run = table[(table["phase"] == "run") & (table["metric"] == "duration")]
    assert (run["value"] == 5000.0).all() and (run["gate"] == "").all(), "the run as a whole was seen"
    assert UNSEEN in (results / "x/tables/headline.md").read_text()


def test_a_first_token_that_was_not_seen_has_its_own_reason(results: Path) -> None:
    table = pd.read_parquet(results / "x/tables/runs.parquet")
    first = table[table["metric"] == "time_to_first_token"]
    seen = (table["metric"] == "tokens").any() and table.loc[
        table["metric"] == "tokens", "value"
    ].notna().any()
    if seen:
        assert (first["value"] == 3000.0).all()
    else:
        assert first["value"].isna().all()
        assert (first["reason"] == "it prints its answer in one piece").all()


def test_the_audit_finds_nothing_wrong_in_what_is_not_there(results: Path) -> None:
    x = results / "x"
    rows = own.audit_tables(
        x / "cells.json", x / "tables/runs.parquet", x / "tables/cells.csv", x / "tables/battery_life.csv",
        records={"bench": {n: x / f"records/bench/{n}.parquet" for n in ("phases", "samples", "answers")}},
        identities_of={"bench": results / "devices/bench/identity.json"},
    )  # fmt: skip
    assert [row for row in rows if row.verdict == CONTRADICTION] == []
    own.refuse(rows, "here")


def test_bounds_of_weights_whose_tensors_are_unknown_say_so(results: Path) -> None:
    bounds = pd.read_csv(results / "x/bounds/bench.csv")
    assert bounds["bound"].isna().all()
    assert bounds["reason"].str.contains("no run tells how many tokens|dark weights are not known").all()
