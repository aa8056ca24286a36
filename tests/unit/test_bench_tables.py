"""Observed beside the benchmark's word: rates, their ratio, what is judged and what withheld."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvlm.analyse.bench import check, tabulate
from pocketvlm.analyse.stats import bootstrap_paired_ratio, bootstrap_ratio
from pocketvlm.errors import IntegrityError, WorkloadError
from pocketvlm.provenance import write_json
from tests.unit.handmade import CELL, IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run

NAME = CELL["cell"]
BOOTSTRAP = {"resamples": 500, "confidence": 0.95, "seed": 1}
SETTINGS = {"threads": 2, "context": 640}
TESTS = {
    "decode": {"prompt": 0, "answer": 3, "depth": 600, "repetitions": 1},
    "prefill": {"prompt": 576, "answer": 0, "depth": 0, "repetitions": 1},
}


def said(part: str, rate: float) -> bytes:
    """What the benchmark prints of one sample at a rate."""
    test = TESTS[part]
    line = {
        "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "type_k": "f16", "type_v": "f16",
        "flash_attn": False, "use_mmap": False, "n_gpu_layers": 0, "backends": "CPU",
        "n_prompt": test["prompt"], "n_gen": test["answer"],
        "n_depth": test["depth"], "samples_ns": [round(1e9 * (test["prompt"] + test["answer"]) / rate)],
    }  # fmt: skip
    return json.dumps(line).encode() + b"\n"


def make(
    results: Path,
    decode: Sequence[float],
    *,
    gates: dict[str, float] | None = None,
    hot: Sequence[int] = (),
    unmeasured: dict[str, str] | None = None,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Write a round for each decode rate that the benchmark is to tell, make the tables and read them."""
    rounds = []
    for number, rate in enumerate(decode):
        one: dict[str, Any] = {"block": "s1", "round": number + 1}
        for place, (part, seen) in enumerate(
            {
                "cell": output(stdout_0_3_16(), stderr_0_3_16()),
                "decode": output([(1_000_000, said("decode", rate))], []),
                "prefill": output([(1_000_000, said("prefill", 300.0))], []),
            }.items()
        ):
            run = f"{str(place) * 64}/{number:02d}"
            noted = {"heat": {"hot": "too hot", "waited_s": 1}} if number in hot and part != "cell" else {}
            sha = write_run(results / f"raw/{run}", seen, role="bench", noted=noted)
            one[part] = {"run": run, "meta_sha256": sha}
        rounds.append(one)
    cells = [{"cell": NAME, "settings": SETTINGS, "tests": TESTS, "rounds": rounds}] if rounds else []
    index = {"experiment": "x", "device": "bench", "cells": cells, "unmeasured": unmeasured or {}}
    write_json(results / "x/bench/bench.json", index)
    write_json(results / "x/cells.json", {"cells": [CELL]})
    write_json(results / "identity.json", IDENTITY)
    paths = [results / f"x/bench/{name}.csv" for name in ("agreement", "runs")]
    tabulate(
        [results / "x/bench/bench.json"],
        [results / "identity.json"],
        results / "x/cells.json",
        results / "raw",
        bench={"tolerance_percent": 5},
        gates=gates or {},
        bootstrap=BOOTSTRAP,
        table=paths[0],
        runs=paths[1],
    )
    table, runs = ([*csv.DictReader(path.open())] for path in paths)
    return table, runs


def test_medians_and_their_ratio(tmp_path: Path) -> None:
    table, runs = make(tmp_path, [9.6, 9.7, 10.4, 9.8, 9.9])
    decode, prefill = table
    # Three steps in 0.3 s are observed, and reported as 300 ms.
    assert [float(decode[name]) for name in ("observed", "bench", "reported")] == [10.0, 9.8, 10.0]
    assert float(decode["ratio"]) == pytest.approx(10 / 9.8) == float(decode["reported_ratio"])
    assert float(decode["ci_low"]) < 10 / 9.8 < float(decode["ci_high"])
    assert (decode["n"], decode["tokens"], decode["depth"], decode["verdict"]) == ("5", "3", "600", "within")
    assert decode["settings"] == CELL["settings"] and decode["weights_kind"] == "synthetic"
    # 576 tokens between two lines 1.89995 s apart, and 1900 ms as reported.
    assert float(prefill["observed"]) == pytest.approx(576 / 1.9, rel=1e-4)
    assert prefill["verdict"] == "not judged" and prefill["tolerance_percent"] == ""
    assert len(runs) == 10 and {run["reason"] for run in runs} == {""}
    assert check(tmp_path / "x/bench/agreement.csv") == [
        f"{NAME}: decode observed 10/s, benchmark 9.8/s at depth 600, +2.04 % "
        f"[{100 * (float(decode['ci_low']) - 1):+.2f}, {100 * (float(decode['ci_high']) - 1):+.2f}] "
        "over 5 rounds, 5 % allowed"
    ]


@pytest.mark.parametrize("rate", [9.5, 10.6])
def test_what_differs_by_more_is_an_error_in_either_direction(tmp_path: Path, rate: float) -> None:
    (decode, _), _ = make(tmp_path, [rate] * 3)
    assert decode["verdict"] == "beyond"
    with pytest.raises(IntegrityError, match=r"decode observed 10/s, benchmark .* over 3 rounds, 5 % allow"):
        check(tmp_path / "x/bench/agreement.csv")


def test_a_cache_of_another_size_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (decode, _), _ = make(tmp_path, [9.8] * 3)
    assert decode["note"] == ""
    monkeypatch.setitem(SETTINGS, "context", 4096)
    (decode, _), _ = make(tmp_path / "large", [9.5] * 3)
    assert decode["note"] == "the cell's cache is for 4096 tokens and the benchmark's for 603"
    with pytest.raises(IntegrityError, match=r"5 % allowed \(the cell's cache is for 4096 tokens and"):
        check(tmp_path / "large/x/bench/agreement.csv")


def test_too_few_rounds_are_no_comparison(tmp_path: Path) -> None:
    (decode, _), _ = make(tmp_path, [9.8, 9.8])
    assert (decode["verdict"], decode["observed"], decode["ratio"]) == ("NA", "", "")
    with pytest.raises(IntegrityError, match="no decode rate could be compared: 2 rounds, 3 are needed"):
        check(tmp_path / "x/bench/agreement.csv")


def test_a_run_that_a_gate_withholds_leaves_its_round_out(tmp_path: Path) -> None:
    (decode, _), runs = make(tmp_path, [9.8, 50.0, 9.8, 9.8], hot=[1])
    assert (decode["n"], decode["bench"], decode["note"]) == ("3", "9.8", "too hot")
    assert [run["reason"] for run in runs if run["quantity"] == "decode"] == ["", "too hot", "", ""]
    # The cell's decoding lasted 300 ms.
    (decode, prefill), _ = make(tmp_path / "short", [9.8] * 3, gates={"min_phase_ms": 500})
    assert decode["n"] == "0" and "the phase lasted 300 ms" in decode["note"]
    assert prefill["n"] == "3"


def test_a_cell_that_was_not_run_has_its_reason(tmp_path: Path) -> None:
    table, runs = make(tmp_path, [], unmeasured={NAME: "not connected"})
    assert [(row["quantity"], row["verdict"], row["note"]) for row in table] == [
        ("decode", "NA", "not connected"),
        ("prefill", "NA", "not connected"),
    ]
    assert runs == []
    with pytest.raises(IntegrityError, match="compared: not connected"):
        check(tmp_path / "x/bench/agreement.csv")


def test_a_benchmark_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "threads", 1)
    with pytest.raises(WorkloadError, match="n_threads was '2', it was to be 1"):
        make(tmp_path, [9.8] * 3)


def test_an_unknown_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="'stranger', which is not in the experiment"):
        make(tmp_path, [], unmeasured={"stranger": "why"})


def test_pairs_stay_pairs() -> None:
    """What slows both of a round leaves their ratio alone, which only drawing whole rounds shows."""
    drift = np.linspace(1.0, 3.0, 21)
    paired = bootstrap_paired_ratio(10 * drift, 8 * drift, **BOOTSTRAP, name="x")
    apart = bootstrap_ratio(10 * drift, 8 * drift, **BOOTSTRAP, name="x")
    assert paired == pytest.approx((1.25, 1.25))
    assert apart[1] - apart[0] > 0.1
