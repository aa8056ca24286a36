"""Parts of the report: thinned series, the picture, lateness, tables of other stages, cells without a run."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketvlm.analyse import metrics
from pocketvlm.analyse.report import Extras, compared, data, live, method, picture, responsiveness, sheets
from pocketvlm.analyse.report.extras import quantity_text, read_table
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import read_json, sha256_file, write_json
from tests import extra_tables
from tests.drawn_report import draw_all, render_report
from tests.synthetic_records import Study, cell, write_study

METHOD = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small invented study of two devices, drawn."""
    study = write_study(tmp_path_factory.mktemp("study") / "results", repeats=3, quantisations=("Q4_0",))
    draw_all(study)
    return study


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    st.integers(min_value=2, max_value=80),
)
def test_thinning_loses_no_extreme_and_invents_nothing(values: list[float], limit: int) -> None:
    whole = pd.Series(values, index=np.arange(len(values)) * 100_000, dtype=float)
    few = live.thinned(whole, limit)
    assert len(few) <= max(limit, 2)
    assert few.max() == whole.max()
    assert few.min() == whole.min()
    assert few.index.is_monotonic_increasing
    assert (whole.loc[few.index] == few).all()
    if len(values) <= limit:
        assert len(few) == len(values)


def series_of(study: Study, allowance: int = live.LIVE_BYTES) -> live.Live | None:
    """Return what the page embeds of the study's first cell."""
    one = read_json(study.cells_json)["cells"][0]
    frame = pd.read_parquet(study.runs)
    mine = frame[(frame["cell"] == one["cell"]) & (frame["phase"] == "run") & (frame["metric"] == "duration")]
    durations = dict(zip(mine["run"], mine["value"], strict=True))
    records = study.records[one["device"]]
    return live.live(
        one,
        list(durations),
        durations,
        {run: run[:8] for run in durations},
        pd.read_parquet(records / "samples.parquet"),
        pd.read_parquet(records / "phases.parquet"),
        read_json(study.identities[one["device"]]),
        study.raw,
        allowance=allowance,
    )


def test_the_embedded_series_are_the_samples(study: Study) -> None:
    found = series_of(study)
    assert found is not None
    what = json.loads(found.json)
    assert "all 3 runs; every sample" in found.note
    samples = pd.read_parquet(study.records["emulated-phone"] / "samples.parquet")
    for run in what["runs"]:
        mine = samples[(samples["run"] == run["run"]) & (samples["quantity"] == "gpu_busy")]
        line = run["panels"]["GPU busy, %"][0]
        assert line["t"] == [round(t / 1000) for t in mine["t_us"]]
        assert line["v"] == pytest.approx(mine["value"].tolist(), rel=1e-4)
        late = run["panels"][live.WAKE][0]
        assert len(late["v"]) == 300
        assert max(late["v"]) == pytest.approx(0.899)
        spans = run["phases"]
        assert [after[1] for after in spans[1:]] == [before[2] for before in spans[:-1]]
    assert ["CPU clock", "no sample"] in what["empty"]


def test_less_is_embedded_where_there_is_less_room_and_the_note_says_so(study: Study) -> None:
    whole = series_of(study)
    assert whole is not None
    less = series_of(study, len(whole.json) // 2)
    assert less is not None
    assert len(less.json) <= len(whole.json) // 2
    assert len(json.loads(less.json)["runs"]) == 1
    assert "1 of 3 runs, the one of median duration first" in less.note
    least = series_of(study, len(less.json) - 1)
    assert least is not None
    assert re.search(r"with more than \d+ samples .* least and the greatest of each", least.note)
    assert series_of(study, 100) is None


def test_a_line_breaks_where_samples_are_missing() -> None:
    times = [0, 100_000, 200_000, 900_000, 1_000_000]
    line = live.Line("x", "#000000", pd.Series([1.0, 2.0, 3.0, 4.0, 5.0], index=times))
    assert live._points(line, 100) == ([0, 100, 200, 550, 900, 1000], [1.0, 2.0, 3.0, None, 4.0, 5.0])


def test_a_changed_wake_file_is_found(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=1, devices=("emulated-phone",), quantisations=("Q4_0",))
    path = next(study.raw.glob("*/*/wake.csv"))
    path.write_text(path.read_text() + "9999999,1\n")
    with pytest.raises(IntegrityError, match=r"wake\.csv"):
        series_of(study)


def test_names_cannot_end_the_embedded_data(study: Study) -> None:
    assert "<" not in live._for_script('{"a":"</script><script>alert(1)</script>&"}')
    assert json.loads(live._for_script('"</script>&"')) == "</script>&"


def test_the_picture_is_the_measured_one_made_smaller(study: Study, tmp_path: Path) -> None:
    image = study.images[0]
    workload = {"id": "coffee", "image_sha256": sha256_file(image)}
    other = tmp_path / "other.png"
    Image.new("RGB", (10, 10)).save(other)
    found = picture.picture(workload, [other, image])
    assert found.source.startswith("data:image/jpeg;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(found.source.partition(",")[2])))
    assert shown.size == (found.width, found.height) == (760, 507)
    assert "1200 × 800 pixels as measured; here as JPEG, 760 × 507" in found.note
    absent = picture.picture(workload, [other])
    assert absent.source == ""
    assert workload["image_sha256"][:16] in absent.note
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    told = picture.picture({"image_sha256": sha256_file(broken)}, [broken])
    assert "broken.png cannot be shown" in told.note


def test_lateness_is_told_against_the_frames_of_a_display(study: Study) -> None:
    cells = read_json(study.cells_json)["cells"]
    summary = pd.read_csv(study.cells_csv)
    late = summary["metric"] == "wake_late_p99"
    summary.loc[late & (summary["phase"] == "load"), "median"] = 20.0
    gone = late & (summary["phase"] == "decode")
    summary.loc[gone, "median"] = np.nan
    summary["gate"] = summary["gate"].astype(object).mask(gone, "the machine stalled")
    of_run = summary[late & (summary["phase"] == "run")]
    more = [
        of_run.assign(metric="missed_deadlines_60hz", median=3.0, unit="%"),
        of_run.assign(metric="shell_round_trip_p50", median=41.5, unit="ms"),
        of_run.assign(metric="jank_percent", median=12.0, unit="%"),
    ]
    # Of each of these the hand-made experiment may have rows of its own.
    summary = summary[~summary["metric"].str.startswith(("missed_", "shell_", "jank_", "frames"))]
    summary = pd.concat([summary, *more])
    one = data.cell_data(cells, summary, pd.read_parquet(study.runs))[0]
    found = {row.phase: row for row in responsiveness.lateness(one, summary)}
    assert found["text_prefill"].worst == "within a 120\u00a0Hz frame"
    assert found["image_encode"].worst == "within a 60\u00a0Hz frame"
    assert found["load"].worst == "more than a 60\u00a0Hz frame"
    assert found["load"].share == 1.0
    assert found["image_encode"].share == pytest.approx(9.5 / (1000 / 60))
    assert found["decode"].reason == "the machine stalled"
    assert found["run"].missed == (("60hz", "3.00\u00a0%"),)
    assert found["run"].besides == (("shell p50, ms", "41.5"), ("jank", "12.0\u00a0%"))
    assert found["load"].besides == ()


def test_every_metric_has_a_definition_that_the_documentation_has_too(study: Study) -> None:
    told = METHOD.read_text(encoding="utf-8")
    for one in method.DEFINITIONS:
        assert f"`{one.metric}" in told, one.metric
    for prefix in metrics.LOWER:
        assert any(one.metric.startswith(prefix) for one in method.DEFINITIONS), prefix
    for name in pd.read_parquet(study.runs)["metric"].unique():
        assert method.definition(name) is not None, name
    wanted = {
        "energy_net": "energy_net",
        "energy_net_per_token": "energy_net_per_token",
        "temperature_max.cpu": "temperature_max",
        "wake_late_p99": "wake_late",
    }
    for name, known in wanted.items():
        one = method.definition(name)
        assert one is not None
        assert one.metric == known
    assert method.definition("unheard") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2.7", "2.7"),
        ("3.80123", "3.801"),
        ("82194.9", "82\u202f195"),
        ("40", "40"),
        ("1e3", "1\u202f000"),
        ("-0.5", "−0.5"),
        ("60 to 70", "60 to 70"),
        ("nan", "nan"),
        ("1_000", "1_000"),
    ],
)
def test_a_cell_of_a_table_gets_no_digits_that_it_has_not(text: str, shown: str) -> None:
    assert quantity_text(text) == shown


def test_published_values_keep_every_digit() -> None:
    assert quantity_text("82194.9", exact=True) == "82\u202f194.9"
    assert quantity_text("2399.0", exact=True) == "2\u202f399.0"


def test_the_ledger_counts_verdicts_and_bounds(tmp_path: Path) -> None:
    path = extra_tables.ledger(tmp_path / "ledger.csv", "a-cell")
    found = compared.read_ledger(path, {"a-cell": "phone, Q4_0"}, {"a-cell": ("synthetic weights",)})
    assert found.counts == (("faster", 1), ("not comparable", 1), ("not measured", 1))
    assert (found.total, found.published, found.bounded, found.highest) == (3, True, 1, "45.2")
    assert [group.label for group in found.groups] == ["phone, Q4_0", ""]
    assert found.groups[0].tags == ("synthetic weights",)
    first = found.groups[0].rows[0]
    assert first["bound_of"] == "25.6 GB/s over 3.05 GB a token"
    assert found.groups[0].sources == ("measured with 2 threads: the best of 64 passes",)
    assert (found.groups[0].reason, found.groups[1].reason) == ("", "")
    assert (first["paper_text"], first["ours_text"], first["percent"]) == ("2.7", "3.801", "45.2")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = extra_tables.write(tmp_path / "audit.csv", ["id", "subject"], [{"id": "x"}])
    with pytest.raises(IntegrityError, match="no column formula"):
        compared.read_audit(path)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(IntegrityError, match="cannot be read"):
        sheets.read_sheet(tmp_path / "nowhere.md", tmp_path / "index.html")


def test_contradictions_come_first(tmp_path: Path) -> None:
    found = compared.read_audit(extra_tables.audit(tmp_path / "audit.csv", 2))
    assert found.contradictions == 2
    assert [row["verdict"] for row in found.rows] == ["contradiction", "contradiction", "consistent"]
    assert [len(part) for part in found.parts] == [2, 1]


def test_a_manuscripts_table_becomes_a_table_and_nothing_else() -> None:
    html = str(sheets.sheet_html(extra_tables.MANUSCRIPT))
    assert html.count('scope="col"') == 3
    assert '<th class="num" scope="col">Load</th>' in html or '<th scope="col" class="num">Load</th>' in html
    assert "some_stack" in html
    assert "3209.1" in html
    for forbidden in ("<script", "<img", "<a ", "style="):
        assert forbidden not in html
    assert "&lt;script&gt;alert(6)" in html
    assert "&lt;script&gt;alert(7)" in html


def test_a_section_without_its_file_is_left_out_and_one_with_it_is_there(
    study: Study, tmp_path: Path
) -> None:
    sections = ("soak", "paper", "ledger", "audit", "battery")
    plain = render_report(study).read_text()
    assert not [one for one in sections if f'<section id="{one}"' in plain or f'href="#{one}"' in plain]
    name = read_json(study.cells_json)["cells"][0]["cell"]
    figure = study.cells_json.parent / "figures" / "phases.svg"
    extras = extra_tables.every(tmp_path, name, figure)
    text = render_report(study, extras=extras).read_text()
    assert [one for one in sections if f'<section id="{one}"' in text and f'href="#{one}"' in text] == list(
        sections
    )
    assert "not throttled &lt;b&gt;within" in text and '<td class="na">NA</td>' in text
    assert "2</span> of 3 checks contradict each other" in text
    with pytest.raises(IntegrityError):
        render_report(study, extras=Extras(ledger=tmp_path / "nowhere.csv"))


def test_what_a_rule_names_is_what_the_page_gets() -> None:
    found = Extras.of({"ledger": "a/ledger.csv", "paper_tables": ["a/t1.md", "a/t2.md"], "audit": []})
    assert found.ledger == Path("a/ledger.csv")
    assert found.paper_tables == [Path("a/t1.md"), Path("a/t2.md")]
    assert found.audit is None
    assert set(Extras.names()) >= {"ledger", "self_audit", "battery_life", "paper_figures"}


def test_a_cell_that_was_not_measured_is_a_row_with_the_reason(tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", repeats=2, devices=("local",), quantisations=("Q4_0",))
    draw_all(study)
    cells = read_json(study.cells_json)
    gone = cell("local", "Q8_0", kind="local", model="llava-1.5-7b") | {"framework": "mllm"}
    why = "mllm is not provisioned: build <it> first"
    cells["cells"].append({**gone, "stack": None, "unavailable": why})
    write_json(study.cells_json, cells)
    summary = pd.read_csv(study.cells_csv)
    row = summary.iloc[0].to_dict() | {key: gone[key] for key in gone if key in summary.columns}
    row |= {"n": 0, "median": np.nan, "ci_low": np.nan, "ci_high": np.nan, "gate": why}
    row |= {"phase": "run", "metric": "duration"}
    pd.concat([summary, pd.DataFrame([row])]).to_csv(study.cells_csv, index=False)
    text = render_report(study).read_text()
    assert re.search(
        r'<th scope="row">mllm[^<]*</th>.*?not measured</span> mllm is not provisioned: build &lt;it&gt;',
        text,
        re.DOTALL,
    )
    assert "2 measured runs of 2 cells" in re.sub(r"\s+", " ", text)
