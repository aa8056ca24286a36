"""Every published value stands in the ledger, and no verdict claims more than was measured."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pocketvlm.analyse.bounds import BOUNDED
from pocketvlm.analyse.bounds import COLUMNS as BOUND_COLUMNS
from pocketvlm.analyse.ledger import COLUMNS, write_ledger
from pocketvlm.analyse.ledger.others import others_of
from pocketvlm.analyse.ledger.published import items
from pocketvlm.analyse.ledger.quantities import UNKNOWN
from pocketvlm.analyse.ledger.table import VERDICTS
from pocketvlm.config.paper import load_paper
from pocketvlm.provenance import write_json

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config/paper/arxiv-2507.08505.yaml"
VALUES = load_paper(PAPER)
STACK = "llava-llamacpp"
PHONE = {
    "cell": "c", "device": "oneplus13r", "device_kind": "phone", "framework": "llama.cpp", "version": "1",
    "backend": "cpu", "build": "b", "adapter": "llamacpp", "model": "llava-1.5-7b", "weights_kind": "hub",
    "quantisation": "Q4_0", "workload": "w", "settings": "", "stack": STACK, "unavailable": None,
}  # fmt: skip
PEAKS = {
    "format": 1, "device": "oneplus13r", "kind": "phone", "bandwidth_bytes_per_s": 5e10,
    "operations_per_s": 1e12, "source": "quoted: a sheet", "reason": None, "cache_bytes": None,
    "sources": {"bandwidth": "quoted: a sheet", "operations": "quoted: a sheet"},
}  # fmt: skip
BOOTSTRAP = {"resamples": 100, "confidence": 0.95, "seed": 1}
Values = dict[tuple[str, str], float | None]


def published(stage: str) -> float:
    value = VALUES.duration(STACK, stage)
    assert value is not None
    return value.middle


def like_the_paper() -> Values:
    """What a cell would give that behaves as the paper tells, as far as that is free of contradictions."""
    prompt, answer = VALUES.told(STACK, "prompt_tokens"), VALUES.answer_tokens(STACK)
    cpu = VALUES.utilisation(STACK, "cpu_pct")
    assert prompt and answer and cpu
    encode, decode = published("image_encode"), published("image_decode")
    return {
        ("load", "reported.load"): published("load"),
        ("image_encode", "duration"): encode,
        ("image_prefill", "duration"): decode,
        ("text_prefill", "duration"): published("prompt_eval") - encode - decode,
        ("decode", "duration"): published("token_generation"),
        ("decode", "tokens_per_second"): 1e3 * answer.low / published("token_generation"),
        ("decode", "tokens"): answer.low,
        ("image_prefill", "tokens"): 576.0,
        ("text_prefill", "tokens"): prompt.low - 576.0,
        ("run", "duration"): published("total") + published("load"),
        ("run", "reported.total"): published("total"),
        ("run", "system_cpu"): cpu.middle,
        ("run", "gpu_busy"): None,
    }


def ledger(
    folder: Path,
    *cells: dict[str, Any],
    values: Values | None = None,
    bounds: dict[tuple[str, str], float] | None = None,
    paper: Path | None = PAPER,
    gate: str = "not read",
) -> list[dict[str, str]]:
    """Write a ledger from cells that all have the same values, and return its rows."""
    values = like_the_paper() if values is None else values
    units = {"duration": "ms", "tokens_per_second": "1/s", "tokens": "1"}
    runs, summary = [], []
    for cell in cells:
        for (phase, metric), value in values.items():
            row = {"cell": cell["cell"], "phase": phase, "metric": metric, "unit": units.get(metric, "")}
            runs += [{**row, "run": f"k/{n}", "value": value, "gate": ""} for n in range(3)]
            told = {"median": value, "ci_low": value, "ci_high": value}
            summary.append(
                {**row, **told, "n": 0 if value is None else 3, "gate": gate if value is None else ""}
            )
    columns = ["cell", "phase", "metric", "unit", "n", "median", "ci_low", "ci_high", "gate"]
    pd.DataFrame(summary, columns=columns).to_csv(folder / "cells.csv", index=False)
    runs_of = pd.DataFrame(runs, columns=["cell", "phase", "metric", "unit", "run", "value", "gate"])
    runs_of.astype({"value": float}).to_parquet(folder / "runs.parquet")
    write_json(folder / "cells.json", {"experiment": "x", "cells": list(cells)})
    for device in {cell["device"] for cell in cells}:
        write_json(folder / f"{device}.peaks.json", {**PEAKS, "device": device})
    with (folder / "bounds.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, BOUND_COLUMNS)
        writer.writeheader()
        for cell in cells if bounds is not None else ():
            for phase, metric, unit, kind in BOUNDED:
                bound = (bounds or {}).get((phase, metric))
                writer.writerow({
                    "cell": cell["cell"], "phase": phase, "metric": metric, "unit": unit, "kind": kind,
                    "bound": bound or "", "margin_percent": 5 if bound else "", "inputs": "so much",
                    "source": "a sheet", "reason": "" if bound else "no peak",
                })  # fmt: skip
    models = yaml.safe_load((ROOT / "config/models.yaml").read_text())
    write_ledger(
        cells=folder / "cells.json",
        summary=folder / "cells.csv",
        runs=folder / "runs.parquet",
        bounds=[folder / "bounds.csv"],
        peaks=sorted(folder.glob("*.peaks.json")),
        paper=paper,
        shapes={name: entry["shape"] for name, entry in models.items() if "shape" in entry},
        bootstrap=BOOTSTRAP,
        tolerance_percent=10,
        destination=folder / "ledger.csv",
    )
    with (folder / "ledger.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == COLUMNS
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    return rows


def pick(rows: list[dict[str, str]], quantity: str, place: str = "", stack: str = STACK) -> dict[str, str]:
    """The one row of a quantity of a stack in a place of the paper."""
    found = [
        row
        for row in rows
        if (row["stack"], row["quantity"]) == (stack, quantity) and row["published_in"].startswith(place)
    ]
    assert len(found) == 1, [(row["published_in"], row["unit"]) for row in found]
    return found[0]


def leaves(value: Any) -> int:
    """How many values a part of the paper's file holds; a range is one."""
    return sum(map(leaves, value.values())) if isinstance(value, dict) else 1


def test_every_published_value_is_an_item_and_each_is_known() -> None:
    raw = yaml.safe_load(PAPER.read_text())
    found = list(items(VALUES))
    assert [item.key for item in found if item.quantity is UNKNOWN] == []
    places = Counter(item.place for item in found)
    assert places["table 2"] == leaves(raw["table2"]["rows"])
    assert places["table 3"] == leaves(raw["table3"]["rows"])
    assert places["section 4.3"] == leaves(raw["utilisation"])
    # Of section 4.4 a group's two values are said of each of its stacks.
    groups = 2 * len(raw["stacks"])
    assert places["section 4.4 and figure 4"] == groups + leaves(raw["energy"]["battery"])
    assert places["sections 4.2 and 4.3"] == leaves(raw["text"])
    assert places["follows from table 3 and table 2"] == len(raw["stacks"])
    printed = [item for item in found if item.value is None and not item.text]
    assert len(printed) == str(raw["table2"]["rows"]).count("None") + str(raw["utilisation"]).count("None")


def test_what_behaves_like_the_paper_on_its_phone_is_reproduced(tmp_path: Path) -> None:
    rows = ledger(tmp_path, PHONE)
    for quantity in ("load", "image_encode", "image_decode", "prompt_eval", "token_generation", "total"):
        row = pick(rows, quantity, "table 2")
        assert row["verdict"] == "reproduced", row
        assert float(row["ratio"]) == pytest.approx(1, abs=1e-5) and row["n"] == "3"
        assert float(row["ours"]) == pytest.approx(float(row["paper"]), rel=1e-5)
    assert pick(rows, "decode_rate")["verdict"] == pick(rows, "answer_tokens")["verdict"] == "reproduced"
    assert pick(rows, "cpu")["verdict"] == "reproduced"
    # The text tells other times for the same runs: these are not reproduced by what reproduces the table.
    assert pick(rows, "time per token")["verdict"] == "slower"
    assert pick(rows, "prompt_eval", "sections")["verdict"] == "faster"
    assert pick(rows, "prompt_tokens")["verdict"] == "reproduced"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device_kind": "emulated", "device": "emulated-phone"}, "emulated phone"),
        ({"device_kind": "local", "device": "local"}, "no phone"),
        ({"device": "pixel9"}, "measured on pixel9, the paper's phone is a"),
        ({"weights_kind": "synthetic"}, "synthetic weights"),
        ({"weights_kind": "synthetic", "device_kind": "local", "device": "local"}, "synthetic weights"),
    ],
)
def test_nothing_else_is_ever_a_reproduction(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    rows = ledger(tmp_path, {**PHONE, **changes})
    verdicts = Counter(row["verdict"] for row in rows if row["ours"] and row["stack"] == STACK)
    assert set(verdicts) == {"not comparable"} and verdicts["not comparable"] > 10
    for row in rows:
        if row["verdict"] == "not comparable":
            assert words in row["reason"] and row["ratio"]


@pytest.mark.parametrize(
    ("changed", "factor", "quantity", "verdict"),
    [
        (("image_encode", "duration"), 0.5, "image_encode", "faster"),
        (("image_encode", "duration"), 2.0, "image_encode", "slower"),
        (("image_encode", "duration"), 1.09, "image_encode", "reproduced"),
        (("decode", "tokens_per_second"), 2.0, "decode_rate", "faster"),
        (("decode", "tokens_per_second"), 0.5, "decode_rate", "slower"),
        (("run", "system_cpu"), 2.0, "cpu", "higher"),
        (("run", "system_cpu"), 0.5, "cpu", "lower"),
    ],
)
def test_the_verdict_knows_which_way_is_faster(
    tmp_path: Path, changed: tuple[str, str], factor: float, quantity: str, verdict: str
) -> None:
    values = like_the_paper()
    before = values[changed]
    assert before is not None
    place = "table 2" if quantity == "image_encode" else ""
    row = pick(ledger(tmp_path, PHONE, values={**values, changed: before * factor}), quantity, place)
    assert row["verdict"] == verdict


def pick_all(rows: list[dict[str, str]], verdict: str) -> set[str]:
    return {row["quantity"] for row in rows if row["verdict"] == verdict and row["published_in"] == "table 2"}


def test_answers_and_prompts_of_other_lengths_are_not_compared(tmp_path: Path) -> None:
    rows = ledger(tmp_path, PHONE, values={**like_the_paper(), ("decode", "tokens"): 400.0})
    assert pick_all(rows, "not comparable") == {"token_generation", "total"}
    assert "answers of 400 tokens here and of" in pick(rows, "total", "table 2")["reason"]
    rows = ledger(tmp_path, PHONE, values={**like_the_paper(), ("text_prefill", "tokens"): 300.0})
    assert pick_all(rows, "not comparable") == {"prompt_eval", "total"}
    assert "prompts of 876 tokens here" in pick(rows, "prompt_eval", "table 2")["reason"]


def test_what_is_missing_keeps_its_reason_and_what_is_not_printed_says_so(tmp_path: Path) -> None:
    rows = ledger(tmp_path, PHONE, values={**like_the_paper(), ("image_encode", "duration"): None})
    for quantity, reason in (
        ("image_encode", "not read"),
        ("prompt_eval", "not read"),
        ("gpu", "not read"),
        ("current", "current stands in no table"),
    ):
        row = pick(rows, quantity, "section 4.3" if quantity in ("gpu", "current") else "table 2")
        assert (row["verdict"], row["ours"], row["ratio"]) == ("not measured", "", "")
        assert reason in row["reason"]
    assert (
        pick(rows, "load", "table 2", "imp-mlcimp")["reason"] == "no cell of this experiment runs this stack"
    )
    mllm = {**PHONE, "stack": "llava-mllm"}
    rows = ledger(tmp_path, mllm)
    assert pick(rows, "image_decode", stack="llava-mllm")["verdict"] == "no published value"


def test_each_cell_of_a_stack_has_its_rows(tmp_path: Path) -> None:
    rows = ledger(tmp_path, PHONE, {**PHONE, "cell": "d", "quantisation": "Q8_0"})
    count = sum(item.stack == STACK for item in items(VALUES))
    assert Counter(row["cell"] for row in rows if row["stack"] == STACK) == {"c": count, "d": count}


def test_bounds_of_ours_and_how_near_ours_comes(tmp_path: Path) -> None:
    values = like_the_paper()
    rate, encode = values["decode", "tokens_per_second"], values["image_encode", "duration"]
    assert rate and encode
    bounds = {("decode", "tokens_per_second"): 4 * rate, ("image_encode", "duration"): encode / 10}
    rows = ledger(tmp_path, PHONE, bounds=bounds)
    row = pick(rows, "decode_rate")
    assert float(row["bound"]) == pytest.approx(4 * rate, rel=1e-5) and row["fraction_of_bound"] == "0.25"
    assert float(pick(rows, "time per token")["bound"]) == pytest.approx(1e3 / (4 * rate), rel=1e-5)
    assert pick(rows, "time per token")["fraction_of_bound"] == "0.25"
    assert pick(rows, "image_encode", "table 2")["fraction_of_bound"] == "0.1"
    assert pick(rows, "image_encode", "sections")["fraction_of_bound"] == "0.1"
    # One phase without a bound: the sum of all has none.
    assert pick(rows, "prompt_eval", "table 2")["bound"] == ""
    assert row["bound_source"] == "a sheet"


def test_a_phone_that_is_not_there_still_bounds_what_is_published(tmp_path: Path) -> None:
    absent = {**PHONE, "unavailable": "no phone is connected"}
    rows = ledger(tmp_path, absent, values={})
    row = pick(rows, "decode_rate")
    assert (row["verdict"], row["reason"]) == ("not measured", "no phone is connected")
    # A 7B model at four bits and a half is some 3.8 GB a token; the cache of 600 positions another 0.3 GB.
    assert 5e10 / 4.3e9 < float(row["bound"]) < 5e10 / 3.7e9
    assert "shape of llava-1.5-7b at Q4_0" in row["bound_source"] and "quoted" in row["bound_source"]
    assert row["fraction_of_bound"] == "" and row["ours"] == ""
    assert (
        float(pick(rows, "prompt_eval", "table 2")["bound"]) > float(pick(rows, "image_decode")["bound"]) > 0
    )
    elsewhere = {**absent, "device": "local", "device_kind": "local"}
    assert pick(ledger(tmp_path, elsewhere, values={}), "decode_rate")["bound"] == ""
    unknown = {**absent, "quantisation": "Q9"}
    row = pick(ledger(tmp_path, unknown, values={}), "decode_rate")
    assert row["bound"] == "" and "not known at Q9" in row["bound_source"]


def test_others_are_of_the_same_class_of_model_and_quantity(tmp_path: Path) -> None:
    anchors = VALUES.at("anchors")
    rate, prefill = (anchor["value"] for anchor in anchors if anchor["what"].startswith("LLaVA-1.5 7B"))
    rows = ledger(tmp_path, PHONE)
    assert float(pick(rows, "decode_rate")["others"]) == rate
    assert float(pick(rows, "time per token")["others"]) == pytest.approx(1e3 / rate, rel=1e-5)
    assert float(pick(rows, "prompt_eval", "table 2")["others"]) == pytest.approx(1e3 * prefill)
    assert "ExecuTorch" in pick(rows, "prompt_eval", "table 2")["others_source"]
    assert pick(rows, "image_encode", "table 2")["others"] == ""
    mobile = others_of(VALUES, VALUES.stack("mobilevlm-llamacpp"))
    assert [one.quantity for one in mobile] == ["decode rate"] and "headline" in mobile[0].source
    imp = others_of(VALUES, VALUES.stack("imp-mlcimp"))
    assert len(imp) == 1 and "196 px" in imp[0].source


def test_without_a_paper_our_cells_stand_against_their_bounds(tmp_path: Path) -> None:
    bounds = {("decode", "duration"): 1.0}
    rows = ledger(tmp_path, {**PHONE, "stack": None}, paper=None, bounds=bounds)
    assert [(row["phase"], row["quantity"]) for row in rows] == [
        (phase, metric) for phase, metric, *_ in BOUNDED
    ]
    assert all(row["paper"] == row["published_in"] == row["ratio"] == "" for row in rows)
    by = {(row["phase"], row["quantity"]): row for row in rows}
    decode = by["decode", "duration"]
    assert float(decode["fraction_of_bound"]) == pytest.approx(1 / published("token_generation"), rel=1e-5)
    assert (decode["verdict"], decode["bound_source"]) == ("no published value", "so much; a sheet")
    assert by["image_encode", "duration"]["bound_source"] == "no peak"
    # Without a paper a cell that names a stack is a cell like any other.
    assert len(ledger(tmp_path, PHONE, paper=None, bounds=bounds)) == len(BOUNDED)
    # Beside a paper a cell of no stack stands below it.
    rows = ledger(tmp_path, PHONE, {**PHONE, "cell": "d", "stack": None})
    assert [row["quantity"] for row in rows if row["cell"] == "d"] == [metric for _, metric, *_ in BOUNDED]
