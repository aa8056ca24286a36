"""The report's content: numbers as text, what it refuses, and that it holds whatever a study brings."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.analyse import numbers
from pocketvlm.analyse.figures import palette
from pocketvlm.analyse.report import data, gaps, inline, origin, page
from pocketvlm.errors import IntegrityError, PocketvlmError
from pocketvlm.provenance import read_json
from tests.drawn_report import TEMPLATES, draw_all, render_report
from tests.synthetic_records import Study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small invented study of two devices, drawn."""
    study = write_study(tmp_path_factory.mktemp("study") / "results", repeats=2, quantisations=("Q4_0",))
    draw_all(study)
    return study


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234567.0, "1\u202f234\u202f567"),
        (16.523, "16.5"),
        (-0.01234, "−0.0123"),
        (812.0, "812"),
        (99.96, "100"),
        (1e-12, "0.000000000"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert numbers.number(value) == text


def test_intervals_share_decimals_and_show_narrow_ones() -> None:
    assert numbers.interval(16.52, 16.1, 17.04) == ("16.5", "16.1", "17.0")
    assert numbers.interval(16.523, 16.511, 16.534) == ("16.52", "16.51", "16.53")
    assert numbers.interval(0.0, 0.0, 0.0) == ("0", "0", "0")
    assert numbers.interval(576.0, 576.0, 576.0) == ("576", "576", "576")
    assert numbers.interval(0.0, -0.0999999, 0.0) == ("0.000", "−0.100", "0.000")


@given(st.text())
def test_visible_text_has_no_character_that_hides_or_steers(text: str) -> None:
    shown, cut = numbers.visible(text, 50)
    assert cut == max(0, len(text) - 50)
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", shown)


def test_lone_surrogates_are_written_out() -> None:
    assert numbers.visible("a\udcffb", 10) == ("a⟨U+DCFF⟩b", 0)


def test_the_page_says_what_was_measured_and_by_what(study: Study) -> None:
    text = render_report(study).read_text()
    assert "4 measured runs of 2 cells on 2 devices" in re.sub(r"\s+", " ", text)
    assert "no power supply under /sys/class/power_supply" in text
    assert "sensor coverage 71 % is below 90 %" in text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "1 file differs from the commit" in text
    assert "snakemake 9.27.1" in text
    assert "a" * 64 in text
    assert "The weights are random" in text
    for entry in (json.loads(path.read_text()) for path in study.blocks.values()):
        for run in entry["runs"]:
            assert f"../../raw/{run['run']}/stdout" in text
            assert run["meta_sha256"] in text
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_equal_inputs_give_equal_pages(study: Study) -> None:
    path = render_report(study)
    first = path.read_bytes()
    assert render_report(study).read_bytes() == first


def test_one_device_without_energy(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "results", repeats=1, devices=("local",), quantisations=("Q4_0",), withheld=False
    )
    draw_all(study)
    text = render_report(study).read_text()
    assert "Every number passed." in text
    assert "EMULATED PHONE" not in text
    assert ">emulated phone<" not in text
    assert text.count("<tbody>") >= 1


@pytest.mark.slow
def test_hundreds_of_runs_stay_below_five_megabytes(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=80, quantisations=("Q4_0", "Q8_0"))
    draw_all(study)
    path = render_report(study)
    assert path.stat().st_size < 5_000_000
    text = path.read_text()
    assert text.count('href="../../raw/') >= 320 * 6
    assert "12 others faint, 67 not drawn" in text


def test_figures_beyond_the_budget_are_linked(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "INLINE_BYTES", 30_000)
    text = render_report(study).read_text()
    assert "linked, to keep this page small" in text
    assert text.count("pocketvlm-figure") < 5


def test_values_beyond_the_limit_are_left_to_the_table(study: Study) -> None:
    cells = read_json(study.cells_json)["cells"]
    summary, runs = pd.read_csv(study.cells_csv), pd.read_parquet(study.runs)
    full = data.cell_data(cells, summary, runs)[0]
    short = data.cell_data(cells, summary, runs, value_limit=10)[0]
    kept = [row for _, rows in short.phases for row in rows if row.values]
    assert {(row.phase, row.metric) for row in kept} <= {
        (column.phase, column.metric) for column in data.COLUMNS
    }
    assert len(kept) == sum(1 for one in full.headline if one.n)
    assert short.headline == full.headline


def test_a_column_of_a_device_has_equal_decimals(study: Study) -> None:
    cells = [{**cell, "device": "d"} for cell in read_json(study.cells_json)["cells"]]
    summary = pd.read_csv(study.cells_csv)
    one = (summary["phase"] == "run") & (summary["metric"] == "duration")
    summary.loc[one, ["median", "ci_low", "ci_high"]] = [
        [9876.5, 9000.0, 10000.0],
        [12345.6, 12345.0, 12346.0],
    ]
    shown = [one.headline[0].median for one in data.cell_data(cells, summary, pd.read_parquet(study.runs))]
    assert shown == ["9.88", "12.35"]


def test_reasons_that_differ_in_their_count_only_are_one() -> None:
    runs = pd.DataFrame(
        {
            "device": "d",
            "reason": [
                "3 samples in the phase, 5 are needed",
                "1 samples in the phase, 5 are needed",
                "no node",
            ],
            "metric": ["power", "power", "gpu_busy"],
            "phase": ["load", "other", "run"],
            "value": float("nan"),
        }
    )
    found = {entry.reason: entry for entry in gaps.absent(runs)}
    assert set(found) == {"1 to 3 samples in the phase, 5 are needed", "no node"}
    assert found["1 to 3 samples in the phase, 5 are needed"].metrics == (
        gaps.Metrics("load, other", ("power",), ("power",)),
    )


def test_gates_that_differ_in_their_numbers_only_are_one_with_every_run_in_full(study: Study) -> None:
    cells = read_json(study.cells_json)["cells"]
    summary, runs = pd.read_csv(study.cells_csv), pd.read_parquet(study.runs).assign(gate="")
    phone = runs["device"] == "emulated-phone"
    own = sorted(set(runs[phone]["run"]))
    heat = runs[phone & (runs["phase"] == "other")].iloc[0].to_dict()
    more = [{**heat, "metric": f"temperature_max.{i}", "run": own[0], "value": 1.0} for i in range(5)]
    runs = pd.concat([runs, pd.DataFrame(more)], ignore_index=True)
    other = (runs["device"] == "emulated-phone") & (runs["phase"] == "other")
    runs.loc[other, "gate"] = runs.loc[other, "run"].map(
        {run: f"it lasted {51.65 + i} ms, 100 ms are needed" for i, run in enumerate(own)}
    )
    found = gaps.withheld(data.cell_data(cells, summary, runs), runs)
    assert [entry.gate for entry in found] == ["it lasted 51.65 to 52.65 ms, 100 ms are needed"]
    (metrics,) = found[0].metrics
    assert metrics.phases == "other"
    assert "temperature_max.* (6)" in metrics.short
    assert {"temperature_max.0", "temperature_max.4"} <= set(metrics.full)
    ((cell, closed),) = found[0].cells
    assert cell.cell["device"] == "emulated-phone"
    assert {one.run: one.gates for one in closed} == {
        run: (f"it lasted {51.65 + i} ms, 100 ms are needed",) for i, run in enumerate(own)
    }


def test_a_headline_without_any_thermal_zone_says_so(study: Study) -> None:
    cells = read_json(study.cells_json)["cells"]
    summary, runs = pd.read_csv(study.cells_csv), pd.read_parquet(study.runs)
    for table in (summary, runs):
        local = (table["device"] == "local") & (table["metric"] == "temperature_max.cpu")
        table.loc[local, "metric"] = "temperature_max"
    shown = data.cell_data(cells, summary, runs)[-1]
    place = [column.metric for column in data.COLUMNS].index("temperature_max.cpu")
    assert shown.cell["device"] == "local"
    assert shown.headline[place].n == 0
    assert "thermal zone" in shown.headline[place].reason


def test_a_changed_run_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=1, devices=("local",), quantisations=("Q4_0",))
    draw_all(study)
    meta = next(study.raw.glob("*/*/meta.json"))
    meta.write_text(meta.read_text().replace("2026", "2027"))
    with pytest.raises(IntegrityError, match="sha256"):
        render_report(study)
    meta.unlink()
    with pytest.raises(IntegrityError, match="not in the raw store"):
        render_report(study)


def test_a_missing_figure_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=1, devices=("local",), quantisations=("Q4_0",))
    with pytest.raises(IntegrityError, match=r"phases\.svg"):
        render_report(study)


def test_no_cells_is_an_error(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=1, devices=("local",), quantisations=("Q4_0",))
    study.cells_json.write_text('{"cells": [], "experiment": "x"}')
    with pytest.raises(PocketvlmError, match="no cells"):
        render_report(study)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<g onload="alert(1)"/>',
        '<use xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="http://127.0.0.1/x#a"/>',
        '<rect style="fill: url(http://127.0.0.1/x)"/>',
        "<foreignObject/>",
        '<image href="#x"/>',
        "<g>",
    ],
)
def test_a_figure_that_could_run_or_load_is_refused(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "x.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>')
    with pytest.raises(IntegrityError):
        inline.inline_svg(path, "f1")


def test_ids_of_figures_do_not_meet(study: Study) -> None:
    path = study.cells_json.parent / "figures" / "throughput.svg"
    one, two = str(inline.inline_svg(path, "f1")), str(inline.inline_svg(path, "f2"))
    ids = set(re.findall(r'id="([^"]+)"', one))
    assert ids
    assert ids.isdisjoint(re.findall(r'id="([^"]+)"', two))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', one)) <= ids
    assert "<style>" not in one


def test_the_script_is_the_one_the_policy_allows(study: Study) -> None:
    text = render_report(study).read_text()
    script = text.rsplit("<script>", 1)[1].split("</script>")[0]
    assert f"script-src {page.script_hash(script)};" in text
    assert text.count("<script>") == 1


def contrast(a: str, b: str) -> float:
    """Return the contrast of two colours `#rrggbb` as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_both_themes() -> None:
    style = (TEMPLATES / "css" / "10-page.css").read_text()
    themes = [
        dict(re.findall(r"--([a-z-]+): ?(#[0-9a-f]{6})", f"--paper:{b}"))
        for b in style.split("--paper:")[1:4]
    ]
    assert [len(theme) >= 8 for theme in themes] == [True] * 3
    for theme in themes:
        for name in ("ink", "muted", "accent", "warn"):
            assert contrast(theme[name], theme["paper"]) >= 4.5, (name, theme)
        for name in ("good", "amber"):
            assert name not in theme or contrast(theme[name], theme["paper"]) >= 4.5, (name, theme)
        assert "raised" not in theme or contrast(theme["muted"], theme["raised"]) >= 4.5
        assert contrast(theme["ink"], theme["hit"]) >= 4.5
        assert contrast(theme["warn"], theme["warn-paper"]) >= 4.5


def test_css_and_figures_share_the_phases_colours(study: Study) -> None:
    text = render_report(study).read_text()
    for phase, colour in palette.PHASE_COLOURS.items():
        assert f"--phase-{phase.replace('_', '-')}: {colour};" in text


def test_origin_of_a_clone_and_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    nowhere = origin.read_origin(tmp_path)
    assert nowhere.commit is None
    assert nowhere.changed is None
    assert "not a git repository" in nowhere.reason
    assert nowhere.drawn == "1970-01-01T00:00:00Z"
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    clean = origin.read_origin(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean.commit or "")
    assert clean.changed == ()
    (tmp_path / "new file").write_text("")
    dirty = origin.read_origin(tmp_path)
    assert dirty.changed is not None
    assert len(dirty.changed) == 1
    assert dirty.packages["snakemake"] is not None
