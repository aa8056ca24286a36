"""The paper's figures: its plateaus, our runs, and the reason where there is none."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text

from pocketvlm.analyse.figures import style
from pocketvlm.analyse.figures.paper import draw_paper_figure
from pocketvlm.analyse.figures.paper_power import measured, peaks
from pocketvlm.analyse.figures.paper_timeline import choose, stacks_of
from pocketvlm.analyse.paper.ours import NO_CELL
from pocketvlm.config.paper import load_paper
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import read_json, write_json
from tests.paper_study import PAPER, UNPROVISIONED, PaperStudy, copy_paper_study, write_paper_study

RAW: dict[str, Any] = yaml.safe_load(PAPER.read_text())
NUMBERS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> PaperStudy:
    return write_paper_study(tmp_path_factory.mktemp("study") / "results", repeats=3)


@pytest.fixture
def made(original: PaperStudy, tmp_path: Path) -> PaperStudy:
    return copy_paper_study(original, tmp_path / "results")


def draw(made: PaperStudy, number: int, *endings: str) -> Path:
    folder = made.study.cells_json.parent / "figures"
    wanted = endings or ("svg",)
    draw_paper_figure(
        number,
        made.paper,
        made.cells,
        made.results,
        made.study.records,
        made.study.identities,
        [folder / f"paper_figure{number}.{ending}" for ending in wanted],
    )
    return folder / f"paper_figure{number}.{wanted[0]}"


def words(path: Path) -> str:
    """Return all text of an SVG, lines joined."""
    root = ET.fromstring(path.read_text())
    return " ".join(" ".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text"))


def described(path: Path) -> str:
    return ET.fromstring(path.read_text()).findtext("{http://www.w3.org/2000/svg}desc") or ""


def plateau(stack: str, quantity: str) -> str:
    value = RAW["utilisation"][stack][quantity]
    return f"paper: {'–'.join(map(str, value)) if isinstance(value, list) else value} %"


def test_figures_are_of_one_model_each() -> None:
    paper = load_paper(PAPER)
    assert [[stack.id for stack in stacks_of(paper, n)] for n in (1, 2, 3)] == [
        ["llava-llamacpp", "llava-mllm"],
        ["mobilevlm-llamacpp"],
        ["imp-mlcimp"],
    ]
    for number in (0, 4):
        with pytest.raises(PocketvlmError, match="3 models"):
            stacks_of(paper, number)


def test_plateaus_runs_and_reasons(made: PaperStudy) -> None:
    text = words(draw(made, 1))
    for stack, quantity in itertools.product(("llava-llamacpp", "llava-mllm"), ("cpu_pct", "gpu_pct")):
        assert plateau(stack, quantity) in text
    assert UNPROVISIONED in text
    assert "EMULATED PHONE" in text
    assert "SYNTHETIC WEIGHTS" in text
    assert "image encode" in text
    text = words(draw(made, 2))
    assert plateau("mobilevlm-llamacpp", "cpu_pct") in text
    assert "Not exposed by this device: no kgsl and no mali node" in text
    assert "EMULATED" not in text
    assert "this machine, no phone, synthetic weights" in text
    text = words(draw(made, 3))
    assert NO_CELL in text
    assert plateau("imp-mlcimp", "gpu_pct") in text
    assert "SYNTHETIC" not in text


def test_the_run_drawn_is_the_median_of_those_that_passed(made: PaperStudy) -> None:
    stack, cell = made.paper.stacks[0], made.cells[0]
    runs = pd.read_parquet(made.study.runs)
    whole = runs[(runs["cell"] == cell["cell"]) & (runs["metric"] == "duration") & (runs["phase"] == "run")]
    order = whole.sort_values("value")["run"].tolist()
    seen = choose(stack, [cell], made.results)
    assert (seen.run, seen.runs) == (order[1], 3)
    runs.loc[runs["run"] == order[1], "gate"] = "too hot"
    made.write_runs(runs)
    assert choose(stack, [cell], made.results).run == order[0]
    runs.loc[runs["cell"] == cell["cell"], "gate"] = "too hot"
    made.write_runs(runs)
    seen = choose(stack, [cell], made.results)
    assert (seen.run, seen.reason) == ("", "too hot")
    assert "No run: too hot" in words(draw(made, 1))
    # Another cell of the stack stands in for it, and the figure says that there are more.
    seen = choose(stack, [cell, made.cells[1]], made.results)
    assert (seen.cell, seen.others) == (made.cells[1], 1)


def test_power_and_temperature_theirs_and_ours(made: PaperStudy) -> None:
    path = draw(made, 4)
    assert "No power of mobilevlm-llamacpp: no power supply under" in words(path)
    assert f"No power and temperature of imp-mlcimp: {NO_CELL}" in words(path)
    assert "power, ours" in words(path)
    told = described(path)
    low, high = RAW["energy"]["cpu_only_llava"]["power_w"]
    assert f"llava-llamacpp: paper {(low + high) / 2:g} W ({low} to {high})" in told
    assert "mobilevlm-llamacpp: paper 3.5 W (3.5 to 3.5), 72 degC; ours no power, no temperature" in told
    stack, cell = made.paper.stacks[0], made.cells[0]
    found = measured(stack, [cell], made.results, made.study.records)
    samples = pd.read_parquet(made.study.records["emulated-phone"] / "samples.parquet")
    runs = pd.read_parquet(made.study.runs)
    mine = sorted(runs.loc[runs["cell"] == cell["cell"], "run"].unique())
    wide = samples[samples["quantity"].isin(["current", "voltage"])].pivot_table(
        index=["run", "t_us"], columns="quantity", values="value"
    )
    by_hand = (wide["current"] * wide["voltage"]).groupby("run").max()
    assert peaks(samples, mine) == pytest.approx(by_hand[mine].tolist())
    assert found.power is not None
    assert found.power.middle == pytest.approx(by_hand[mine].median())
    assert found.temperature is not None
    both = measured(stack, [cell, made.cells[1]], made.results, made.study.records)
    assert both.power == found.power
    assert both.name.endswith("; 1 more of this stack in the tables")
    # A run whose power was withheld has no peak either.
    runs.loc[(runs["run"] == mine[0]) & (runs["metric"] == "power"), "gate"] = "it was charging"
    made.write_runs(runs)
    found = measured(stack, [cell], made.results, made.study.records)
    assert found.power is not None
    assert found.power.high == pytest.approx(by_hand[mine[1:]].max())
    runs.loc[(runs["cell"] == cell["cell"]) & (runs["metric"] == "power"), "gate"] = "it was charging"
    made.write_runs(runs)
    found = measured(stack, [cell], made.results, made.study.records)
    assert found.power is None
    assert found.missing == (("power", "it was charging"),)


@pytest.mark.parametrize("number", NUMBERS)
def test_without_a_single_run_there_is_the_paper_and_the_reason(made: PaperStudy, number: int) -> None:
    made.lose_all_runs()
    made.study.records.clear()
    made.study.identities.clear()
    text = words(draw(made, number))
    assert "EMULATED" not in text
    if number == 3:
        assert NO_CELL in text
    else:
        assert "no phone is connected" in text
    assert "paper" in text
    assert "power, ours" not in text


@pytest.mark.parametrize("number", NUMBERS)
def test_the_same_records_give_the_same_bytes(made: PaperStudy, number: int) -> None:
    path = draw(made, number, "svg", "png")
    first = path.read_bytes(), path.with_suffix(".png").read_bytes()
    draw(made, number, "svg", "png")
    assert (path.read_bytes(), path.with_suffix(".png").read_bytes()) == first


def texts(drawn: Figure) -> list[tuple[str, Any]]:
    """Return every visible text of a laid out figure with its box in pixels."""
    hidden = set()
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            located = [(tick.get_loc(), tick.label1) for tick in ticks]
            hidden |= {label for at, label in located if not low - 1e-9 <= at <= high + 1e-9}
            if not axes.axison or not axis.get_visible():
                hidden |= {tick.label1 for tick in ticks}
    found = [text for text in drawn.findobj(Text) if isinstance(text, Text) and text not in hidden]
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text().strip() and t.get_visible()]


@pytest.mark.parametrize("number", NUMBERS)
def test_no_text_overlaps_or_leaves_the_figure_whatever_the_reason(
    made: PaperStudy, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = r"$\frac{1}$ <b>&amp; " + "no such node under /sys/class/of_this_kind " * 12
    for path in made.study.identities.values():
        identity = read_json(path)
        for entry in identity["missing"]:
            entry["reason"] = hostile
        write_json(path, identity)
    cells = made.cells
    cells[-1]["unavailable"] = hostile
    cells[2]["model"] = "a-model-with-a-name-that-is-much-longer-than-any-other"
    made.write(cells)
    runs = pd.read_parquet(made.study.runs)
    runs.loc[runs["value"].isna(), "reason"] = hostile
    made.write_runs(runs)
    kept: list[Figure] = []
    save = style.save

    def keep(drawn: Figure, *arguments: Any, **named: Any) -> None:
        save(drawn, *arguments, **named)
        drawn.draw_without_rendering()
        kept.append(drawn)

    monkeypatch.setattr(style, "save", keep)
    path = draw(made, number, "svg", "png")
    (drawn,) = kept
    width, height = drawn.get_size_inches() * drawn.dpi
    told = texts(drawn)
    for text, box in told:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for (one, a), (two, b) in itertools.combinations(told, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 2 or down < 2, (one, two)
    if number != 3:
        assert r"$\frac{1}$ <b>&amp;" in words(path)
        assert "…" in words(path)
