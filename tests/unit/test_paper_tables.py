"""The paper's tables: theirs as printed, ours with what they are, and no text that breaks a table."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pocketvlm.analyse.figures import labels
from pocketvlm.analyse.paper import render_tables
from pocketvlm.analyse.paper.columns import COLUMNS
from pocketvlm.analyse.paper.latency import PROMPT, total_meaning
from pocketvlm.analyse.paper.metrics import COLUMNS as METRIC_COLUMNS
from pocketvlm.analyse.paper.ours import NO_CELL
from pocketvlm.config.paper import STAGES, Published
from tests.paper_study import BOOTSTRAP, PAPER, UNPROVISIONED, PaperStudy, copy_paper_study, write_paper_study

RAW: dict[str, Any] = yaml.safe_load(PAPER.read_text())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> PaperStudy:
    return write_paper_study(tmp_path_factory.mktemp("study") / "results")


@pytest.fixture
def made(original: PaperStudy, tmp_path: Path) -> PaperStudy:
    return copy_paper_study(original, tmp_path / "results")


def render(made: PaperStudy, paper: Path = PAPER) -> Path:
    destination = made.study.cells_csv.parent
    render_tables(
        paper=paper,
        cells=made.study.cells_json,
        summary=made.study.cells_csv,
        runs=made.study.runs,
        bootstrap=BOOTSTRAP,
        destination=destination,
    )
    return destination


def numbers(folder: Path, table: int) -> list[dict[str, str]]:
    with (folder / f"paper_table{table}.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        assert tuple(reader.fieldnames or ()) == (METRIC_COLUMNS if table == 1 else COLUMNS)
    return rows


def markdown_rows(text: str) -> list[list[str]]:
    """Return the entries of a Markdown table's rows: what lies between pipes that are not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def latex_rows(text: str) -> list[list[str]]:
    r"""Return the entries of a LaTeX table's rows: what lies between ampersands that are not escaped."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    return [[part.strip() for part in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in lines]


def test_theirs_are_the_numbers_of_the_file(made: PaperStudy) -> None:
    folder = render(made)
    theirs = {(row["stack"], row["quantity"]): row for row in numbers(folder, 2) if row["whose"] == "paper"}
    assert len(theirs) == len(RAW["stacks"]) * len(STAGES)
    for (stack, stage), row in theirs.items():
        value = RAW["table2"]["rows"][stack][stage]
        assert row["value"] == ("" if value is None else repr(float(value)))
        assert (row["n"], row["cell"]) == ("" if value is None else str(RAW["protocol"]["repeats"]), "")
    lengths = {row["stack"]: row["value"] for row in numbers(folder, 3) if row["whose"] == "paper"}
    assert lengths == {stack: repr(float(value)) for stack, value in RAW["table3"]["rows"].items()}


def test_what_the_paper_does_not_print_is_a_dash_and_never_zero(made: PaperStudy) -> None:
    folder = render(made)
    head, _, *rows = markdown_rows((folder / "paper_table2.md").read_text())
    mllm = next(row for row in rows if row[0].startswith("llava-1.5-7b, mllm"))
    assert mllm[head.index("Image decode")] == "–"
    tex = latex_rows((folder / "paper_table2.tex").read_text())
    assert next(row for row in tex if "mllm" in row[0])[head.index("Image decode")] == "--"
    row = next(r for r in numbers(folder, 2) if (r["stack"], r["quantity"]) == ("llava-mllm", "image_decode"))
    assert (row["value"], row["note"]) == ("", "not printed")


def test_ours_are_what_the_tables_hold(made: PaperStudy) -> None:
    folder = render(made)
    summary = pd.read_csv(made.study.cells_csv)
    rows = {
        (row["cell"], row["whose"], row["quantity"]): row for row in numbers(folder, 2) if row["cell"] != ""
    }
    for cell in made.cells[:4]:
        mine = summary[(summary["cell"] == cell["cell"])].set_index(["phase", "metric"])
        for stage, key in {
            "load": ("load", "duration"),
            "image_decode": ("image_prefill", "duration"),
            "token_generation": ("decode", "duration"),
            "total": ("run", "duration"),
        }.items():
            row = rows[cell["cell"], "ours, observed", stage]
            assert float(row["value"]) == pytest.approx(mine.loc[key, "median"])
            assert float(row["ci_low"]) == pytest.approx(mine.loc[key, "ci_low"])
            assert row["n"] == "5"
        printed = rows[cell["cell"], "ours, as printed", "total"]
        assert float(printed["value"]) == pytest.approx(mine.loc[("run", "reported.total"), "median"])
        assert rows[cell["cell"], "ours, as printed", "load"]["note"] == "not recorded"


def test_prompt_eval_is_added_up_run_by_run_and_a_withheld_phase_takes_its_run_away(made: PaperStudy) -> None:
    runs = pd.read_parquet(made.study.runs)
    cell = made.cells[0]["cell"]
    mine = runs[(runs["cell"] == cell) & (runs["metric"] == "duration") & runs["phase"].isin(PROMPT)]
    sums = mine.groupby("run")["value"].sum()

    def prompt_eval() -> dict[str, str]:
        rows = numbers(render(made), 2)
        return next(
            r
            for r in rows
            if (r["cell"], r["whose"], r["quantity"]) == (cell, "ours, observed", "prompt_eval")
        )

    assert float(prompt_eval()["value"]) == pytest.approx(np.median(sums))
    # The median of the sums is not the sum of the medians.
    assert float(prompt_eval()["value"]) != pytest.approx(
        mine.groupby("phase")["value"].median().sum(), abs=1e-6
    )
    last = sums.index[-1]
    hit = (runs["run"] == last) & (runs["metric"] == "duration") & (runs["phase"] == "image_encode")
    runs.loc[hit, "gate"] = "observed and reported differ"
    made.write_runs(runs)
    row = prompt_eval()
    assert row["n"] == "4"
    assert float(row["value"]) == pytest.approx(np.median(sums.drop(last)))
    runs.loc[(runs["cell"] == cell) & (runs["phase"] == "image_encode"), "gate"] = "it was too hot"
    made.write_runs(runs)
    row = prompt_eval()
    assert (row["n"], row["value"], row["note"]) == ("0", "", "it was too hot")


def test_what_was_not_measured_is_na_with_its_reason(made: PaperStudy) -> None:
    folder = render(made)
    ours = [row for row in numbers(folder, 2) if row["stack"] == "llava-mllm" and row["whose"] == "ours"]
    assert [row["quantity"] for row in ours] == list(STAGES)
    assert {(row["n"], row["value"], row["note"]) for row in ours} == {("0", "", UNPROVISIONED)}
    missing = [row for row in numbers(folder, 3) if row["stack"] == "imp-mlcimp" and row["whose"] == "ours"]
    assert [(row["n"], row["value"], row["note"]) for row in missing] == [("0", "", NO_CELL)]
    text = (folder / "paper_table2.md").read_text()
    mark = re.search(rf"^\((\w+)\) {UNPROVISIONED}", text, re.MULTILINE)
    assert mark is not None
    row = next(row for row in markdown_rows(text) if row[1].startswith("ours (emulated"))
    assert row[3:] == [f"NA ({mark[1]})"] * 6


def test_every_row_of_ours_says_what_it_is_and_nothing_is_called_a_reproduction(made: PaperStudy) -> None:
    folder = render(made)
    for table in (2, 3):
        for row in numbers(folder, table):
            if row["cell"]:
                assert labels.SYNTHETIC in row["label"]
                assert (labels.EMULATED in row["label"]) == (row["device_kind"] == "emulated")
                assert ("no phone" in row["label"]) == (row["device_kind"] == "local")
        for ending in ("md", "tex"):
            text = (folder / f"paper_table{table}.{ending}").read_text()
            caption = text.split("**")[1] if ending == "md" else text.split(r"\caption")[1].split("\n")[0]
            assert labels.SYNTHETIC in caption
            assert labels.EMULATED in caption
            assert "this machine, no phone" in caption
            rows = markdown_rows(text) if ending == "md" else latex_rows(text)
            said = [row[1] for row in rows if row[1].startswith("ours") and row[1] != "ours"]
            assert len(said) >= 5
            assert all("synthetic" in text and ("emulated" in text or "no phone" in text) for text in said)
            # Only to deny it.
            assert len(re.findall("reproduc", text)) == len(re.findall("are no reproduction", text)) == 1


def test_a_phone_with_published_weights_is_not_warned_of(made: PaperStudy) -> None:
    made.change(device_kind="phone", weights_kind="hub")
    text = (render(made) / "paper_table2.md").read_text()
    assert "reproduc" not in text
    assert "synthetic weights" not in text.lower()
    assert "ours, observed (phone)" in text


def test_the_definitions_stand_below_the_table(made: PaperStudy) -> None:
    text = (render(made) / "paper_table2.md").read_text().replace("\\", "")
    assert (
        "llama.cpp's name for evaluating the image's tokens in the language model; our phase image_prefill"
        in text
    )
    assert "counter contains text prefill, image encode and image decode" in text
    assert "wall time of the process" in text
    rows = RAW["table2"]["rows"]["llava-llamacpp"]
    rest = rows["total"] - rows["prompt_eval"] - rows["token_generation"]
    assert f"prompt eval + token generation + {rest:.1f} ms" in text


def test_what_a_total_is_made_of_follows_from_its_row() -> None:
    def row(**values: float | None) -> dict[str, Published | None]:
        full: dict[str, float | None] = {**dict.fromkeys(STAGES), **values}
        return {stage: None if v is None else Published(v, v) for stage, v in full.items()}

    added = row(load=10, image_encode=20, prompt_eval=30, token_generation=40, total=100)
    assert "sum of all stages" in total_meaning(added)
    outside = row(load=10, image_encode=20, prompt_eval=60, token_generation=38, total=100)
    assert "prompt eval + token generation + 2.0 ms" in total_meaning(outside)
    assert "neither" in total_meaning({**outside, "total": Published(300, 300)})
    assert total_meaning({**outside, "total": None}) == ""
    assert total_meaning({**outside, "total": Published(90, 110)}) == ""


def test_ranges_and_nulls_of_another_paper(made: PaperStudy, tmp_path: Path) -> None:
    values = yaml.safe_load(PAPER.read_text())
    values["table2"]["rows"]["imp-mlcimp"] |= {"load": [3.5, 4], "total": None}
    values["table3"]["rows"] |= {"imp-mlcimp": [9, 13], "llava-mllm": None}
    values["table1"]["metrics"].append("Beauty")
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(values))
    folder = render(made, path)
    row = next(r for r in numbers(folder, 2) if (r["stack"], r["quantity"]) == ("imp-mlcimp", "load"))
    assert (row["value"], row["least"], row["greatest"]) == ("", "3.5", "4.0")
    rows = markdown_rows((folder / "paper_table2.md").read_text().replace("\\", ""))
    imp = next(row for row in rows if row[0].startswith("imp-v1.5-3b"))
    assert (imp[3], imp[-1]) == ("3.5–4.0", "–")
    lengths = markdown_rows((folder / "paper_table3.md").read_text())
    assert next(row for row in lengths if row[0].startswith("imp-v1.5-3b"))[3] == "9–13"
    assert next(row for row in lengths if "mllm" in row[0])[3].startswith("–")
    beauty = [row for row in numbers(folder, 1) if row["metric"] == "Beauty"]
    assert {(row["available"], row["reason"]) for row in beauty} == {
        ("NA", "no metric of this project answers to it")
    }


def test_answers_that_use_the_whole_budget_say_so(made: PaperStudy) -> None:
    rows = [row for row in numbers(render(made), 3) if row["cell"] == made.cells[0]["cell"]]
    assert [(row["value"], row["n"]) for row in rows] == [("32", "5")]
    assert "the whole token budget" in rows[0]["note"]
    runs = pd.read_parquet(made.study.runs)
    runs.loc[runs["metric"] == "token_budget", "value"] = 64.0
    made.write_runs(runs)
    assert [r["note"] for r in numbers(render(made), 3) if r["cell"] == made.cells[0]["cell"]] == [""]
    theirs = {row["stack"]: row["note"] for row in numbers(render(made), 3) if row["whose"] == "paper"}
    for stack, told in RAW["text"].items():
        if "generated_tokens" in told:
            assert theirs[stack] == f"the paper's text says {told['generated_tokens']}"
        else:
            assert theirs[stack] == ""


def test_each_metric_of_table_1_is_measured_or_missing_with_a_reason(made: PaperStudy) -> None:
    rows = {(row["metric"], row["metrics"], row["device"]): row for row in numbers(render(made), 1)}
    assert {metric for metric, _, _ in rows} == set(RAW["table1"]["metrics"])
    here = rows["power consumption", "power", "local"]
    assert (here["available"], here["cells_measured"], here["cells"]) == ("NA", "0", "2")
    assert here["reason"] == "no power supply under /sys/class/power_supply"
    phone = rows["power consumption", "power", "emulated-phone"]
    assert (phone["available"], phone["cells_measured"], phone["cells"]) == ("measured in part", "2", "3")
    assert UNPROVISIONED in phone["reason"]
    assert rows["inference latency", "duration", "local"]["available"] == "measured"
    for row in rows.values():
        assert (row["available"] == "measured") == (row["reason"] == "")


def test_an_experiment_without_a_single_run_is_all_na(made: PaperStudy) -> None:
    made.lose_all_runs()
    folder = render(made)
    for table in (2, 3):
        ours = [row for row in numbers(folder, table) if row["cell"]]
        assert len(ours) == len(made.cells) * (len(STAGES) if table == 2 else 1)
        assert {(row["value"], row["n"], row["note"]) for row in ours} == {("", "0", "no phone is connected")}
    assert {row["available"] for row in numbers(folder, 1)} == {"NA"}
    text = (folder / "paper_table2.md").read_text()
    assert "NA (" in text
    assert text.split("**")[1].count("where nothing was measured") == 2


HOSTILE = (
    "a|b & c_d % $x$ \\input{/etc/passwd} <script>alert(1)</script> [x](http://e.example)\n# {}\u202e\u0000`"
)


def test_untrusted_text_breaks_no_table(made: PaperStudy) -> None:
    made.lose_all_runs()
    summary = pd.read_csv(made.study.cells_csv).assign(gate=HOSTILE)
    summary.to_csv(made.study.cells_csv, index=False)
    made.change(model=HOSTILE, device=HOSTILE, quantisation=HOSTILE, framework=HOSTILE, unavailable=HOSTILE)
    folder = render(made)
    for table in (1, 2, 3):
        markdown = (folder / f"paper_table{table}.md").read_text()
        assert len({len(row) for row in markdown_rows(markdown)}) == 1
        assert "<script" not in markdown
        assert not re.search(r"(?<!\\)\]\(", markdown)
        tex = (folder / f"paper_table{table}.tex").read_text()
        assert len({len(row) for row in latex_rows(tex)}) == 1
        assert r"\input" not in tex
        body = tex.replace(r"\{", "").replace(r"\}", "")
        assert body.count("{") == body.count("}")
        assert not re.search(r"(?<!\\)[%#]", tex.split("\n", 1)[1])
        assert "\u202e" not in markdown + tex
        assert len(numbers(folder, table)) >= 4


def test_equal_input_gives_equal_bytes(made: PaperStudy) -> None:
    names = [f"paper_table{n}.{ending}" for n in (1, 2, 3) for ending in ("csv", "md", "tex")]
    first = [(render(made) / name).read_bytes() for name in names]
    assert [(render(made) / name).read_bytes() for name in names] == first
